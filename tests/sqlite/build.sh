#!/bin/bash
# Builds SQLite's own test programs twice, plain and with libreplica linked in (Debian 12).
#
#   tests/sqlite/build.sh [folder] [build folder]      default: build/sqlite build
#
# Needs tcl-dev, zlib1g-dev and dpkg-dev besides libreplica's own packages (scripts/install-packages.sh test).
#
# SQLite's source comes by `apt-get source` with an apt configuration, sources and lists of its own in <folder>/apt, so
# the system's stay as they are (DEBIAN_MIRROR names another mirror). It is kept in <folder>/source: a second run needs
# no network. The objects are made once; a new libreplica.a is only linked. The build folder has libreplica.a,
# libreplica.pc and replica.
#
# CONFIGURE_OPTIONS goes to SQLite's configure (--enable-debug: SQLite's asserts, ten times as slow); use a folder of
# its own. JOBS: how many compilers at once. The results are in <folder>/build/bin/{baseline,replica}: testfixture,
# mptester, threadtest3, speedtest1; and the command replica.
#
# Exit code 77: packages are missing, or SQLite's source is not there and neither is the network. The last line says
# which.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
mkdir -p "${1:-build/sqlite}"
folder=$(realpath "${1:-build/sqlite}")
build=$(realpath "${2:-build}")
mirror=${DEBIAN_MIRROR:-http://deb.debian.org}
keys=/usr/share/keyrings/debian-archive-keyring.gpg
faults=(os_common.h test_malloc.c test_syscall.c)  # what main_thread.sed changes
changes=7                                          # and in how many lines

skip() {
  echo "$1" >&2
  exit 77
}

fail() {
  tail -n 30 "$1" >&2
  echo "$2" >&2
  exit 1
}

# One build at a time in a folder, and none while tests run there.
exec 9>"$folder/lock"
flock -w 60 9 || skip "the tests in $folder are running"

missing=()
for package in tcl-dev zlib1g-dev dpkg-dev; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] || skip "these packages are missing: ${missing[*]}"

# The source package, once.
if ! ls "$folder"/source/*.dsc >/dev/null 2>&1; then
  apt=$folder/apt
  rm -rf "$apt" "$folder/source.new"
  mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$folder/source.new"
  for suite in 'debian bookworm' 'debian-security bookworm-security'; do
    echo "deb-src [signed-by=$keys] $mirror/$suite main"
  done >"$apt/sources.list"
  # Read after the system's configuration, so a proxy that is set there holds. APT::Sandbox: root may own the folder.
  cat >"$apt/apt.conf" <<EOF
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::State "$apt/state";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "$apt/cache";
Acquire::Languages "none";
Acquire::Retries "1";
Acquire::http::Timeout "30";
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
EOF
  (cd "$folder/source.new" && export APT_CONFIG="$apt/apt.conf" &&
    apt-get update -qq && apt-get source -qq --download-only sqlite3) ||
    skip "SQLite's source is not in $folder/source and cannot be downloaded from $mirror"
  mv "$folder/source.new" "$folder/source"
  rm -rf "$apt"
fi

# dpkg-source compares the archives with the checksums in the .dsc; apt-get has verified that one.
if [ ! -e "$folder/build/Makefile" ] || ! cmp -s "$here/main_thread.sed" "$folder/main_thread.sed"; then
  rm -rf "$folder/src" "$folder/build"
  dpkg-source --no-copy -x "$folder"/source/*.dsc "$folder/src" >"$folder/unpack.log" 2>&1 ||
    fail "$folder/unpack.log" "SQLite's source cannot be unpacked"
  (cd "$folder/src/src" && sed -i -f "$here/main_thread.sed" "${faults[@]}")
  changed=$(cd "$folder/src/src" && cat "${faults[@]}" | grep -c 'suite_main_thread()' || true)
  [ "$changed" = "$changes" ] ||
    fail /dev/null "main_thread.sed changed $changed lines, not $changes: adapt it to this version of SQLite"
  mkdir "$folder/build"
  cd "$folder/build"
  tcl=$(dirname "$(find /usr/lib -path '*/tcl8.6/tclConfig.sh' | head -n 1)")
  # shellcheck disable=SC2086 # several options
  ../src/configure --disable-shared --with-tcl="$tcl" ${CONFIGURE_OPTIONS:-} >configure.log 2>&1 ||
    { rm -f Makefile; fail configure.log "SQLite's configure failed"; }
  cp "$here/main_thread.sed" "$folder/"
fi

# SQLite itself is in the programs.
libraries=$(PKG_CONFIG_PATH=$build pkg-config --libs-only-l libreplica | sed 's/-lsqlite3//')
cd "$folder/build"
# Not by its time alone: another build folder's may be older.
stat -c '%n %s %Y' "$build/libreplica.a" >replica.new
cmp -s replica.new replica.linked || mv replica.new replica.linked
mkdir -p bin/replica
cmp -s "$build/replica" bin/replica/replica || install "$build/replica" bin/replica/
make -f "$here/programs.mk" -s -j "${JOBS:-$(nproc)}" SUITE="$here" REPLICA="$build/libreplica.a" \
  REPLICA_LIBS="$libraries -lpthread" CXX="${CXX:-g++}" programs >make.log 2>&1 ||
  fail make.log "SQLite's test programs cannot be built"
