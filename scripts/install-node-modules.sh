#!/bin/bash
# Installs the npm packages of a folder's package-lock.json into <build>/node/<name>, once for each state of that file.
#
#   scripts/install-node-modules.sh <folder with package.json> <build folder> [npm arguments]
set -euo pipefail
folder=$1
target=$2/node/$(basename "$folder")
shift 2
mkdir -p "$target"
if [ -f "$target/installed" ] && cmp -s "$folder/package-lock.json" "$target/installed"; then exit 0; fi
cp "$folder/package.json" "$folder/package-lock.json" "$target/"
npm ci --prefix "$target" --no-audit --no-fund --ignore-scripts --silent "$@"
cp "$folder/package-lock.json" "$target/installed"
