#!/bin/sh
# Builds the last release's libreplica.so, once, and prints the folder that it is in.
#
#   last_release.sh BUILD      BUILD/last-release/<commit>/libreplica.so
#
# The file last_release beside this script holds the release's commit: write it anew when a release is made. Exit code
# 77, with the reason on stderr, where there is no history to take it from: a tarball, or a shallow clone.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -ne 1 ]; then
  echo "usage: $0 BUILD" >&2
  exit 2
fi
commit=$(cat "$here/last_release")
folder=$1/last-release/$commit
if [ -f "$folder/libreplica.so" ]; then
  echo "$folder"
  exit 0
fi
if ! git -C "$here" cat-file -e "$commit^{commit}" 2>/dev/null; then
  echo "commit $commit of the last release is not in the history of $here (not a clone, or a shallow one)" >&2
  exit 77
fi
mkdir -p "$folder"
# Two suites that begin together build it once: the second waits here and finds it.
exec 9>"$folder/lock"
flock 9
if [ ! -f "$folder/libreplica.so" ]; then
  source=$folder/source
  rm -rf "$source"
  mkdir "$source"
  # The whole tree: git archive begins at the folder that it is called in, unless told otherwise.
  git -C "$(git -C "$here" rev-parse --show-toplevel)" archive "$commit" | tar -x -C "$source"
  {
    # Not with the sanitizers or warnings of the build under test: it is what was released.
    cmake -S "$source" -B "$source/build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DREPLICA_CLI=OFF -DREPLICA_TESTS=OFF
    cmake --build "$source/build" --target replica_extension
  } >"$folder/log" 2>&1 || {
    tail -n 20 "$folder/log" >&2
    echo "the last release does not build; see $folder/log" >&2
    exit 1
  }
  # By rename, so that a build that is cut short leaves none. Debugging symbols are most of its size, and nobody's need.
  strip --strip-debug -o "$folder/libreplica.so.new" "$source/build/libreplica.so"
  mv "$folder/libreplica.so.new" "$folder/libreplica.so"
  rm -rf "$source"
fi
echo "$folder"
