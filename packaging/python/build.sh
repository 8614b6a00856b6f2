#!/bin/bash
# Makes the Python wheel from a build tree, without network: build.sh BUILD_DIR OUT_DIR. Prints the wheel's path.
#
# Needs pip, setuptools and wheel for PYTHON (default /usr/bin/python3; Debian: python3-pip python3-setuptools python3-wheel).
# The tag is py3-none-linux_<machine>: it is for one's own index, PyPI takes manylinux wheels only.
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
cp -r "$here/libreplica" "$here/pyproject.toml" "$here/setup.py" "$here/README.md" "$source/LICENSE" "$stage"
strip --strip-unneeded -o "$stage/libreplica/libreplica.so" "$build/libreplica.so"
strip --strip-unneeded -o "$stage/libreplica/replica" "$build/replica"
chmod 755 "$stage/libreplica/libreplica.so" "$stage/libreplica/replica"
echo "__version__ = \"$version\"" >"$stage/libreplica/_version.py"
"${PYTHON:-/usr/bin/python3}" -m pip wheel --quiet --no-build-isolation --no-deps --no-index --wheel-dir "$stage/out" "$stage" >&2
mv "$stage"/out/libreplica-*.whl "$out"
ls "$out"/libreplica-"$version"-py3-none-*.whl
