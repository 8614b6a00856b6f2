#!/bin/bash
# The sqlite3 shell with libreplica: attach, write, verify, lose the database, restore it. Exits non-zero on any difference.
#
#   LIBREPLICA=/usr/local/lib/libreplica REPLICA_URL=s3://bucket/shell-example examples/shell/run.sh
#
# REPLICA_URL is the folder or bucket prefix of this one database (default: a folder beside it); for s3:// the keys are read
# from REPLICA_ACCESS_KEY_ID and so on. It must not hold a replica yet.
set -euo pipefail
library=${LIBREPLICA:-/usr/local/lib/libreplica}
library=${library%.so}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
url=${REPLICA_URL:-file://$folder/replica}
unset REPLICA_URL    # else every WAL database that is opened is replicated below it, under its file name
cd "$folder"

# -batch -bail: the first error ends the shell, with exit code 1.
sql() { sqlite3 -batch -bail "$1" -cmd ".load $library"; }
contents() { sqlite3 -batch "$1" .dump | sha256sum; }

echo "1. Attach and write: 1,000 orders, one commit each"
{
  echo "SELECT 'replica: ' || replica_attach('$url');"
  echo "CREATE TABLE orders(id INTEGER PRIMARY KEY, customer TEXT, amount INTEGER);"
  echo "SELECT 'first TXID: ' || replica_sync();    -- from here on each commit has one of its own"
  for i in {1..1000}; do echo "INSERT INTO orders VALUES ($i, 'customer $((i % 70))', $((i * 37 % 1000)));"; done
  echo "SELECT replica_sync();"
} | sql shop.db | tee out
before_txid=$(tail -1 out)
[ $((before_txid - $(sed -n 's/first TXID: //p' out))) = 1000 ]
contents shop.db >before_mistake

echo "2. A mistake, then status and proof"
sql shop.db <<SQL | tee out
SELECT 'replica: ' || replica_attach('$url');    -- each process says so, or has REPLICA_URL
DELETE FROM orders WHERE customer = 'customer 13';
SELECT 'acknowledged: ' || replica_sync();
SELECT json_extract(replica_status(), '\$.state') || ', lag ' || json_extract(replica_status(), '\$.lag.txids');
SELECT json_extract(replica_verify('main', 'full'), '\$.ok');
SQL
[ "$(tail -2 out)" = $'streaming, lag 0\n1' ]
contents shop.db >before_loss

echo "3. The database is lost, and restored"
rm -r shop.db*
sql :memory: <<<"SELECT replica_restore('$url', 'shop.db');"
contents shop.db >after_loss
cmp before_loss after_loss

echo "4. And once more as it was before the mistake, at TXID $before_txid"
sql :memory: <<<"SELECT replica_restore('$url', 'earlier.db', '$before_txid');" >out
contents earlier.db >restored
cmp before_mistake restored
[ "$(sqlite3 shop.db 'PRAGMA integrity_check' 'SELECT count(*) FROM orders')" = $'ok\n985' ] ||
  { echo "the restored database is not what was written" >&2; exit 1; }
echo "equal: every row is back"
