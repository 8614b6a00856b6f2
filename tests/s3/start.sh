#!/bin/bash
# A real S3 server for the tests: Ceph's RADOS gateway over a monitor and an in-memory OSD, on 127.0.0.1 only.
# Needs Debian's ceph-mon, ceph-osd, radosgw and ceph-common; no root, systemd or docker.
#
#   S3_DIR   where it keeps its files and pids (is emptied)   S3_PORT  of the gateway (default 7480)
#   S3_TLS_CERT, S3_TLS_KEY, S3_TLS_PORT  also serve TLS with this certificate
#   S3_RGW_ARGS  more arguments for radosgw
set -euo pipefail
dir=${S3_DIR:?} port=${S3_PORT:-7480} mon_port=${S3_MON_PORT:-16789}
access=${S3_ACCESS_KEY:-testaccesskey000000} secret=${S3_SECRET_KEY:-testsecretkey0000000000000000000000000000}
tls=
if [ -n "${S3_TLS_CERT:-}" ]; then
  tls=" ssl_endpoint=127.0.0.1:${S3_TLS_PORT:-7443} ssl_certificate=$S3_TLS_CERT ssl_private_key=$S3_TLS_KEY"
fi
new_uuid() { cat /proc/sys/kernel/random/uuid; }
rm -rf "$dir"
mkdir -p "$dir"/{mon,osd,log}
touch "$dir/keyring"
cluster=$(new_uuid) osd=$(new_uuid)
cat > "$dir/ceph.conf" <<CONF
[global]
fsid = $cluster
mon host = v2:127.0.0.1:$mon_port
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr1 = false
ms bind port min = ${S3_OSD_PORT_MIN:-16800}
ms bind port max = ${S3_OSD_PORT_MAX:-16899}
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
keyring = $dir/keyring
run dir = $dir
admin socket =
pid file =
crash dir = $dir/log
log file = $dir/log/\$name.log
mon cluster log file = $dir/log/cluster.log
mon data = $dir/mon
mon data avail crit = 0
mon allow pool size one = true
mon max pg per osd = 10000
paxos propose interval = 0.02
paxos min wait = 0.01
osd data = $dir/osd
osd objectstore = memstore
memstore device bytes = ${S3_BYTES:-4294967296}
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd class load list = *
osd class default list = *
rgw frontends = beast endpoint=127.0.0.1:$port$tls
rgw dns name = localhost
rgw run sync thread = false
rgw thread pool size = 64
rgw override bucket index max shards = 1
CONF
export CEPH_CONF="$dir/ceph.conf"
start() { local name=$1; shift; "$@" </dev/null >"$dir/log/$name.out" 2>&1 & echo $! >"$dir/$name.pid"; }
monmaptool --create --fsid "$cluster" --addv a "v2:127.0.0.1:$mon_port" "$dir/monmap" >"$dir/log/monmap.out"
ceph-mon -i a --mkfs --monmap "$dir/monmap"
start mon ceph-mon -i a -f
ceph --connect-timeout 30 osd new "$osd" >"$dir/log/osdnew.out"
ceph-osd -i 0 --mkfs --osd-uuid "$osd" >"$dir/log/mkfs.out" 2>&1
start osd ceph-osd -i 0 -f
timeout 60 radosgw-admin user create --uid=test --display-name=test --access-key="$access" --secret-key="$secret" \
  --caps="user-policy=*" \
  >"$dir/log/user.out" 2>&1
# shellcheck disable=SC2086
start rgw radosgw -n client.rgw.a -f ${S3_RGW_ARGS:-}
for _ in $(seq 600); do
  curl -so /dev/null "http://127.0.0.1:$port/" && exit 0
  kill -0 "$(<"$dir/rgw.pid")" || break
  sleep 0.05
done
tail -n 20 "$dir"/log/client.rgw.a.log >&2
exit 1
