#!/bin/bash
# Installs the Debian packages that a task needs and that are missing.
#
#   scripts/install-packages.sh [build|package|test|lint|matrix [package ...]]      packages: more of them
set -euo pipefail
packages=(cmake ninja-build g++ pkg-config sqlite3 libsqlite3-dev libcurl4-openssl-dev libssl-dev libzstd-dev libxxhash-dev
  libpugixml-dev nlohmann-json3-dev libyaml-cpp-dev libcli11-dev
  libcpp-httplib-dev libsystemd-dev libcrypt-dev)
if [ "${1:-build}" = package ] || [ "${1:-build}" = test ]; then
  packages+=(dpkg-dev file gzip)
fi
if [ "${1:-build}" = test ]; then
  packages+=(tcl-dev zlib1g-dev libgtest-dev python3 openssl curl ceph-mon ceph-osd radosgw ceph-common lintian systemd chromium
    python3-pip python3-venv python3-setuptools python3-wheel python3-sqlalchemy
    ruby-railties ruby-activerecord ruby-sqlite3 puma make gcc)
  # Node's own package brings npm and the headers; Debian has them apart.
  command -v npm >/dev/null || packages+=(nodejs npm libnode-dev)
fi
if [ "${1:-build}" = lint ]; then
  packages+=(libgtest-dev clang libclang-rt-dev clang-format clang-tidy)
fi
[ "${1:-build}" != matrix ] || packages+=(libgtest-dev)
packages+=("${@:2}")
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
