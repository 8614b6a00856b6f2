#!/bin/bash
# Installs the Debian packages that a task needs and that are missing: "build", "package", "test" or "lint".
set -euo pipefail
packages=(cmake ninja-build g++ pkg-config sqlite3 libsqlite3-dev libcurl4-openssl-dev libssl-dev libzstd-dev libxxhash-dev
  libpugixml-dev nlohmann-json3-dev libyaml-cpp-dev libcli11-dev
  libcpp-httplib-dev libsystemd-dev libcrypt-dev)
if [ "${1:-build}" = package ] || [ "${1:-build}" = test ]; then
  packages+=(dpkg-dev file gzip)
fi
if [ "${1:-build}" = test ]; then
  packages+=(libgtest-dev python3 openssl curl lintian systemd chromium ceph-mon ceph-osd radosgw ceph-common)
fi
if [ "${1:-build}" = lint ]; then
  packages+=(libgtest-dev clang clang-format clang-tidy)
fi
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
$sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
