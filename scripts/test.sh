#!/bin/bash
# Installs what the tests need (Debian 12, as root or with sudo), builds, starts a real S3 server and runs every test.
#
#   scripts/test.sh [preset]     release (default), debug, asan or tsan
#
# Takes some twenty minutes of two cores and 3 GB. Node's packages come from npm's registry and Python's from PyPI, once for each build
# folder; with those and Debian's packages there nothing is downloaded. Without PyPI hosts_test.py is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-release}
scripts/install-packages.sh test
cmake --preset "$preset" -DREPLICA_TESTS=ON
cmake --build --preset "$preset" --parallel "$(nproc)"
build=build
[ "$preset" = release ] || build=build-$preset
if [[ "$preset" != *san ]]; then
  # For the browser test and the Node example; kept in the build folder.
  scripts/install-node-modules.sh tests/browser "$build"
  scripts/install-node-example.sh "$build/node/example"
fi
exec ctest --preset "$preset" --timeout 1200
