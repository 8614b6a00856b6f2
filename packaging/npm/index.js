'use strict';

const path = require('node:path');

const folder = path.join(__dirname, 'native');

/** The extension's path as SQLite's load_extension wants it: without the .so. */
function getLoadablePath() {
  return path.join(folder, 'libreplica');
}

/** The path of the `replica` command. */
function getCommandPath() {
  return path.join(folder, 'replica');
}

/** Loads the extension on a connection of better-sqlite3 or of node:sqlite (see index.d.ts). */
function load(db) {
  // better-sqlite3 allows it for this call alone; node:sqlite where the connection was opened with allowExtension.
  if (typeof db.enableLoadExtension !== 'function') {
    db.loadExtension(getLoadablePath());
    return;
  }
  db.enableLoadExtension(true);
  try {
    db.loadExtension(getLoadablePath());
  } finally {
    db.enableLoadExtension(false);
  }
}

exports.getLoadablePath = getLoadablePath;
exports.getCommandPath = getCommandPath;
exports.load = load;
