// As ../host.py, with libSQL's encryption:   host.js write|read|load DATABASE [LIBRARY host|database]
const fs = require('fs');
const Database = require('libsql');

const [command, path, library, loader] = process.argv.slice(2);
const open = () => new Database(path, { encryptionCipher: 'aes256cbc', encryptionKey: 'secret' });
const one = (db, sql) => Object.values(db.prepare(sql).get())[0];
const insert = (db) => db.exec("INSERT INTO t VALUES('plain text')");
const print = (value) => fs.writeSync(1, JSON.stringify(value) + '\n');

const db = open();
const load = () => (loader === 'database' ? db : new Database(':memory:')).loadExtension(library);
if (command === 'write') {
  db.exec('PRAGMA journal_mode = WAL; CREATE TABLE t(x)');
  insert(db);
  load();
  insert(db);
  const second = open();
  insert(second);
  let attached;
  try {
    attached = one(second, `SELECT replica_attach('file://${path}-attached')`);
  } catch (error) {
    attached = error.message;
  }
  insert(db);
  print({ hooked: [], attached, status: JSON.parse(one(second, 'SELECT replica_status()')) });
  process.kill(process.pid, 'SIGKILL');
} else if (command === 'read') {
  print([one(db, "SELECT count(*) FROM t WHERE x = 'plain text'"), one(db, 'PRAGMA integrity_check')]);
  db.close();
} else {
  load();
}
