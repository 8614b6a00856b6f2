#!/bin/bash
# Installs the PyPI packages of a requirements file into <build>/python/<name>, once for each state of that file.
#
#   scripts/install-python-packages.sh <folder>/<name>.txt <build folder> [pip arguments]
set -euo pipefail
requirements=$1
target=$2/python/$(basename "$requirements" .txt)
shift 2
if [ -f "$target/installed" ] && cmp -s "$requirements" "$target/installed"; then exit 0; fi
rm -rf "$target"
/usr/bin/python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --require-hashes --only-binary :all: \
  --target "$target" -r "$requirements" "$@"
cp "$requirements" "$target/installed"
