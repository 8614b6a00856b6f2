#!/bin/bash
# Builds the library, the command and the unit tests with several compilers in every build type, with warnings as errors, and
# runs the unit tests. Too slow for CI; run it before a release. Unit tests use no S3 server.
#
#   scripts/matrix.sh [compiler ...]
#
# A compiler is g++-12, clang++-14 or clang++-19 (Debian 12 has all three), or "trixie": g++-14 in a Debian 13 chroot, which
# needs root and some 1.5 GB. Without arguments: all four. What is missing is installed with apt.
#
#   MATRIX_TYPES="Debug RelWithDebInfo Release"      the build types
#   MATRIX_JOBS=2                                    compile jobs at a time
#
# It uses ccache where that is installed. Builds, logs and the chroot stay in build-matrix.
set -euo pipefail
cd "$(dirname "$0")/.."
source=$PWD
folder=$PWD/build-matrix
read -r -a types <<<"${MATRIX_TYPES:-Debug RelWithDebInfo Release}"
jobs=${MATRIX_JOBS:-$(nproc)}
compilers=("$@")
[ ${#compilers[@]} -ne 0 ] || compilers=(g++-12 clang++-14 clang++-19 trixie)
mkdir -p "$folder"
failed=()

build() { # compiler type folder
  cmake -S . -B "$3" -G Ninja -DCMAKE_BUILD_TYPE="$2" -DCMAKE_CXX_COMPILER="$1" -DCMAKE_C_COMPILER="$(c_compiler "$1")" \
    -DREPLICA_WERROR=ON -DREPLICA_TESTS=ON "${launcher[@]}" &&
    cmake --build "$3" --parallel "$jobs" --target replica_extension replica_static replica_cli replica_unit_tests -- -k 0 &&
    "$3/tests/replica_unit_tests" --gtest_brief=1
}

c_compiler() {
  case $1 in
    clang++*) echo "clang${1#clang++}" ;;
    g++*) echo "gcc${1#g++}" ;;
  esac
}

# The same script in a chroot of Debian 13, on the same sources. The mounts are in a namespace of their own and end with it.
trixie() {
  local root=$folder/trixie
  if [ ! -e "$root/etc/debian_version" ]; then
    scripts/install-packages.sh build mmdebstrap || return
    mmdebstrap --variant=minbase --include=ca-certificates trixie "$root" >"$root.log" 2>&1 || return
  fi
  local cache=${CCACHE_DIR:-$HOME/.cache/ccache}
  mkdir -p "$root$source" "$cache" "$root$cache"
  unshare --mount -- bash -euc '
    mount --bind "$2" "$1$2"
    mount --bind "$3" "$1$3"
    mount -t proc proc "$1/proc"
    mount --rbind /dev "$1/dev"
    exec chroot "$1" /usr/bin/env CCACHE_DIR="$3" bash "$2/scripts/matrix.sh" g++-14' - "$root" "$source" "$cache"
}

for compiler in "${compilers[@]}"; do
  if [ "$compiler" = trixie ]; then
    trixie || failed+=("in trixie: see above")
    continue
  fi
  scripts/install-packages.sh matrix "$(c_compiler "$compiler" | sed 's/^gcc/g++/')"
  launcher=()
  ! command -v ccache >/dev/null || launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  for type in "${types[@]}"; do
    log=$folder/$compiler-$type.log
    if build "$compiler" "$type" "$folder/$compiler-$type" >"$log" 2>&1; then
      echo "$compiler $type: ok, $("$compiler" -dumpfullversion 2>/dev/null || "$compiler" -dumpversion), $(tail -1 "$log")"
    else
      echo "$compiler $type: FAILED, see $log"
      grep -m 5 -E 'error:|FAILED|CMake Error' "$log" || tail -5 "$log"
      failed+=("$compiler $type")
    fi
  done
done
if [ ${#failed[@]} -ne 0 ]; then
  printf 'failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
