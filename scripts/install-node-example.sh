#!/bin/bash
# Installs what the Node example needs (better-sqlite3, compiled here against Node's own headers) into a folder, once.
#
#   scripts/install-node-example.sh DIR      afterwards DIR/node_modules is there; a second call with the same Node and lock file does nothing
#
# Downloads the packages of package-lock.json with npm, nothing else: no prebuilt binary, no headers. Needs node with
# its headers (nodesource's nodejs has them; Debian's: apt-get install nodejs npm libnode-dev), g++, make and python3.
set -euo pipefail
[ $# = 1 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
example=${NODE_EXAMPLE:-$(dirname "$here")/examples/node}
stamp="$(node -p 'process.version + " ABI " + process.versions.modules') $(sha256sum <"$example/package-lock.json")"
mkdir -p "$1"
cd "$1"
exec 9>.lock
flock -w 900 9
if [ "$(cat .stamp 2>/dev/null)" = "$stamp" ] && [ -e node_modules/better-sqlite3/build/Release/better_sqlite3.node ]; then
  exit 0
fi
# Where the headers are: include/node/node.h below it.
nodedir=${npm_config_nodedir:-}
for folder in "$(dirname "$(dirname "$(readlink -f "$(command -v node)")")")" /usr /usr/local; do
  [ -n "$nodedir" ] || [ ! -e "$folder/include/node/node.h" ] || nodedir=$folder
done
[ -n "$nodedir" ] || { echo "Node's headers (include/node/node.h) are not installed: apt-get install libnode-dev" >&2; exit 1; }
rm -rf .stamp node_modules
cp "$example/package.json" "$example/package-lock.json" .
# Debian's node-gyp works with Debian's Python only, not with one that comes first in PATH.
[ ! -x /usr/bin/python3 ] || export npm_config_python=${npm_config_python:-/usr/bin/python3}
export npm_config_build_from_source=true npm_config_nodedir=$nodedir npm_config_audit=false npm_config_fund=false \
  npm_config_update_notifier=false npm_config_loglevel=error
timeout 900 npm ci --prefer-offline
[ -e node_modules/better-sqlite3/build/Release/better_sqlite3.node ] || { echo "better-sqlite3 was not built" >&2; exit 1; }
# Object files and SQLite's source: nothing needs them any more.
rm -rf node_modules/better-sqlite3/{deps,build/deps,build/Release/.deps,build/Release/obj,build/Release/obj.target}
echo "$stamp" >.stamp
