// better-sqlite3 with libreplica: writes, waits, proves, loses the database and has it restored by opening it.
//
//   REPLICA_URL=s3://bucket/node-example node app.js [FOLDER]      the replica lies at <REPLICA_URL>/shop.db
//
// Loads LIBREPLICA, else the extension of the npm package libreplica. Exits non-zero on any difference.
'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');
const Database = require('better-sqlite3');

// replica_sync and replica_verify block the thread that calls them: in a server call them from a worker, as here.
function inWorker(file, sql) {
  return new Promise((resolve, reject) => {
    const worker = new Worker(__filename, { workerData: { file, sql } });
    worker.once('message', resolve);
    worker.once('error', reject);
  });
}

async function main() {
  assert(process.env.REPLICA_URL, 'set REPLICA_URL');
  const folder = process.argv[2] || fs.mkdtempSync(path.join(os.tmpdir(), 'shop-'));
  const file = path.join(folder, 'shop.db');

  // Once a process, before the database is opened: only so REPLICA_RESTORE=auto can put a missing file back first.
  process.env.REPLICA_RESTORE = 'auto';
  const library = process.env.LIBREPLICA || require('libreplica').getLoadablePath();
  new Database(':memory:').loadExtension(library).close();

  let db = new Database(file);
  db.pragma('journal_mode = WAL');
  db.exec('CREATE TABLE orders(id INTEGER PRIMARY KEY, customer TEXT, amount REAL)');
  const first = await inWorker(file, 'SELECT replica_sync()');     // from here on each commit has a TXID of its own
  const insert = db.prepare('INSERT INTO orders(customer, amount) VALUES (?, ?)');
  for (let i = 0; i < 300; i++) insert.run(`customer ${i % 17}`, i * 1.25);      // one commit each

  const last = await inWorker(file, 'SELECT replica_sync()');
  console.log(`acknowledged: TXID ${first} to ${last}`);
  assert.strictEqual(last - first, 300);
  const status = JSON.parse(db.prepare('SELECT replica_status()').pluck().get());
  console.log('status:', status.state, status.lag);
  assert.deepStrictEqual([status.state, status.lag.txids], ['streaming', 0]);
  const proof = JSON.parse(await inWorker(file, "SELECT replica_verify('main', 'full')"));
  assert.strictEqual(proof.ok, true, JSON.stringify(proof));
  const before = db.prepare('SELECT * FROM orders').all();
  db.close();

  for (const name of fs.readdirSync(folder)) {
    if (name.startsWith('shop.db')) fs.rmSync(path.join(folder, name), { recursive: true });
  }
  db = new Database(file);                                                      // restores
  assert.deepStrictEqual(db.prepare('SELECT * FROM orders').all(), before);
  assert.strictEqual(db.pragma('integrity_check', { simple: true }), 'ok');
  db.prepare('INSERT INTO orders(customer, amount) VALUES (?, ?)').run('after the loss', 1);
  const next = await inWorker(file, 'SELECT replica_sync()');
  console.log(`restored: ${before.length} rows; replicated on, TXID ${next}`);
  assert.strictEqual(next, last + 1);
  db.close();
}

if (isMainThread) {
  main().catch((error) => {
    console.error(error);
    process.exitCode = 1;
  });
} else {
  // The extension is loaded already: it counts for all threads of the process.
  const db = new Database(workerData.file);
  parentPort.postMessage(db.prepare(workerData.sql).pluck().get());
  db.close();
}
