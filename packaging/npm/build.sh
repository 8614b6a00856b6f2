#!/bin/bash
# Makes the npm package from a build tree, without network: build.sh BUILD_DIR OUT_DIR. Prints the .tgz's path.
set -euo pipefail
[ $# = 2 ] || { echo "usage: $0 BUILD_DIR OUT_DIR" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
build=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
version=$(sed -n 's/^CMAKE_PROJECT_VERSION:STATIC=//p' "$build/CMakeCache.txt")
source=$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$build/CMakeCache.txt")
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
cp "$here/index.js" "$here/index.d.ts" "$here/README.md" "$source/LICENSE" "$stage"
VERSION=$version node -e '
  const fs = require("fs");
  const about = JSON.parse(fs.readFileSync(process.argv[1]));
  about.version = process.env.VERSION;
  about.cpu = [process.arch];
  fs.writeFileSync(process.argv[2], JSON.stringify(about, null, 2) + "\n");' "$here/package.json" "$stage/package.json"
mkdir "$stage/native"
strip --strip-unneeded -o "$stage/native/libreplica.so" "$build/libreplica.so"
strip --strip-unneeded -o "$stage/native/replica" "$build/replica"
chmod 755 "$stage/native/libreplica.so" "$stage/native/replica"
(cd "$stage" && npm pack --offline --ignore-scripts --loglevel=error --pack-destination "$out" >/dev/null)
ls "$out/libreplica-$version.tgz"
