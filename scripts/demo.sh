#!/bin/bash
# Installs what is needed (Debian 12), builds, and shows the main job on real data with a file replica: replicate, watch,
# verify, lose the database, restore it.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-packages.sh build
cmake --preset release -DREPLICA_TESTS=OFF >/dev/null
cmake --build --preset release --parallel "$(nproc)"
library=$PWD/build/libreplica
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
url=file://$folder/backup
step() { printf '\n\033[1m%s\033[0m\n' "$*"; }

step "A database of 20,000 orders, replicated to $url while it is written"
sqlite3 -batch shop.db <<SQL
.load $library
SELECT 'replica: ' || replica_attach('$url');
CREATE TABLE orders(id INTEGER PRIMARY KEY, customer TEXT, amount REAL, note TEXT);
CREATE INDEX orders_customer ON orders(customer);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
  INSERT INTO orders SELECT i, 'customer ' || (i % 700), abs(random()) % 100000 / 100.0, hex(randomblob(40)) FROM n;
SELECT 'TXID acknowledged: ' || replica_sync();
UPDATE orders SET amount = 0 WHERE customer = 'customer 13';
UPDATE orders SET amount = amount * 2;
SELECT 'TXID acknowledged: ' || replica_sync();
.print
.print Status:
SELECT key, value FROM json_each(replica_status()) WHERE key IN ('state', 'txid', 'lag', 'puts', 'bytes_raw', 'bytes_stored');
.print
.print Full verify (restores the replica, compares every page, runs integrity_check):
SELECT replica_verify('main', 'full');
.print
.print History:
.mode column
SELECT kind, min_txid, max_txid, restorable, bytes FROM replica_history;
SQL
before=$(sqlite3 shop.db "SELECT count(*), round(sum(amount), 2) FROM orders")

step "The database is lost"
rm -r shop.db*
ls

step "Restored from the replica"
sqlite3 :memory: -cmd ".load $library" "SELECT replica_restore('$url', 'shop.db')"
after=$(sqlite3 shop.db "SELECT count(*), round(sum(amount), 2) FROM orders")
echo "rows and sum before: $before"
echo "rows and sum after:  $after"
sqlite3 shop.db "PRAGMA integrity_check"
[ "$before" = "$after" ]
