#!/bin/bash
# Makes the Debian packages in a folder.
#
#   scripts/package.sh <folder>
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "$1")
scripts/install-packages.sh package
umask 022
library=lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)
cmake -S . -B "$folder/build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_INSTALL_PREFIX=/usr -DREPLICA_TESTS=OFF \
  -DCMAKE_INSTALL_LIBDIR="$library" -DREPLICA_EXTENSION_DIR="$library/sqlite3" >/dev/null
cmake --build "$folder/build" --parallel "$(nproc)"
(cd "$folder/build" && cpack -G DEB -B "$folder/packages" >/dev/null)
rm -rf "$folder/packages/_CPack_Packages"
ls "$folder"/packages/*.deb
