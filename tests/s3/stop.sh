#!/bin/bash
# Stops the processes that start.sh noted, and only those: a pid is killed when it still runs one of the server's programs.
# SIGKILL, as the in-memory store is thrown away.
dir=${S3_DIR:?}
for name in rgw osd mon; do
  pid=$(cat "$dir/$name.pid" 2>/dev/null) || continue
  case $(readlink "/proc/$pid/exe") in
    */radosgw | */ceph-osd | */ceph-mon) kill -9 "$pid" ;;
  esac
done
for _ in $(seq 40); do rm -rf "$dir" 2>/dev/null && break; sleep 0.05; done
