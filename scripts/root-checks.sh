#!/usr/bin/env bash
# The checks that need root: a node on a disk that fills up, on a loop device of its own, and one whose
# sync fails.
# usage: root-checks.sh PRKDB-BINARY
set -euo pipefail
binary=$(realpath "$1")
work=$(mktemp -d)
node= loop=
finish() {
  [ -z "$node" ] || kill -9 "$node" 2>/dev/null || true
  [ -z "$node" ] || wait "$node" 2>/dev/null || true
  mountpoint -q "$work/disk" && umount "$work/disk"
  [ -z "$loop" ] || losetup -d "$loop"
  rm -rf "$work"
}
trap finish EXIT
until_ready() {
  until grep -q '^prkdb ready' "$work/ready"; do
    kill -0 "$node" || fail "$1"
    sleep 0.01
  done
}
# Kills the node on the small disk and starts it on what is there.
start_again() {
  kill -9 "$node"
  wait "$node" 2>/dev/null || true
  : >"$work/ready"
  "$binary" serve --listen "$PRKDB_SERVER" --http none --data-dir "$work/disk/data" \
    --segment-bytes 16MiB >"$work/ready" 2>>"$work/log" &
  node=$!
  until_ready "$1"
}
fail() { echo "FAILED: $*" >&2; tail -n 20 "$work/log" >&2; exit 1; }

for tool in losetup mkfs.ext4 mount mountpoint fallocate strace; do
  command -v "$tool" >/dev/null || { apt-get update -qq && apt-get install -y -qq e2fsprogs util-linux mount strace; break; }
done

# 64 MiB of it are the node's reserve for a full disk.
truncate -s 256M "$work/image"
loop=$(losetup --find --show "$work/image")
mkfs.ext4 -q -m 0 "$loop"
mkdir "$work/disk"
mount "$loop" "$work/disk"
fallocate -l 60M "$work/disk/filler"

"$binary" serve --listen 127.0.0.1:0 --http none --data-dir "$work/disk/data" \
  --segment-bytes 16MiB >"$work/ready" 2>"$work/log" &
node=$!
until_ready "the node did not start"
PRKDB_SERVER=$(sed -n 's/.*grpc=\([^ ]*\).*/\1/p' "$work/ready")
export PRKDB_SERVER
prkdb() { "$binary" "$@"; }

prkdb put before full
head -c 900000 /dev/urandom >"$work/value"
refused=0
for n in $(seq 400); do
  if ! prkdb put "key-$n" --value-file "$work/value" --retries 0 >/dev/null 2>"$work/error"; then
    refused=$n
    break
  fi
done
[ "$refused" -gt 0 ] || fail "the disk was never full"
grep -q 'no room' "$work/error" || fail "refused for another reason: $(cat "$work/error")"
[ "$(prkdb get before)" = full ] || fail "reads do not go on"
code=0
prkdb status >"$work/status" 2>&1 || code=$?
[ "$code" -eq 10 ] && grep -q disk_full "$work/status" || fail "status ($code): $(cat "$work/status")"
echo "full after $refused values: refused by name, reads go on, status 10"

for n in 1 2 3; do
  start_again "the node did not start on the full disk, start $n"
  [ "$(prkdb get before)" = full ] || fail "reads do not go on after start $n"
done
echo "killed and started three times on the full disk"

rm "$work/disk/filler"
for n in $(seq 100); do
  if prkdb put after "room $n" --retries 0 >/dev/null 2>&1; then break; fi
  [ "$n" -lt 100 ] || fail "writes did not go on after space came back"
  sleep 0.1
done
[ "$(prkdb get after | cut -d' ' -f1)" = room ] || fail "the write after it is not there"
last=$((refused - 1))
start_again "the node did not start again"
prkdb get "key-$last" --raw | cmp - "$work/value" || fail "an acknowledged value is gone"
echo "space came back: writes went on by themselves; all there after kill -9"

# A disk whose sync fails: the writer is told that nobody knows, the node ends at once, nothing that
# was acknowledged is gone.
kill -9 "$node"
wait "$node" 2>/dev/null || true
: >"$work/ready"
strace -f -o /dev/null -e trace=fdatasync -e inject=fdatasync:error=EIO:when=60+ \
  "$binary" serve --listen 127.0.0.1:0 --http none --data-dir "$work/data" \
  >"$work/ready" 2>"$work/log" &
node=$!
until_ready "the node did not start under strace"
PRKDB_SERVER=$(sed -n 's/.*grpc=\([^ ]*\).*/\1/p' "$work/ready")
code=0 last=0
for n in $(seq 200); do
  prkdb put "synced-$n" "$n" --retries 0 >/dev/null 2>"$work/error" || { code=$?; break; }
  last=$n
done
[ "$code" -eq 5 ] || fail "a put whose sync failed: exit $code, $(cat "$work/error")"
code=0
wait "$node" || code=$?
[ "$code" -eq 13 ] || fail "a node whose sync failed: exit $code"
grep '^prkdb: ' "$work/log" | grep -q 'Input/output error\|input/output error' ||
  fail "the error is not named"
: >"$work/ready"
"$binary" serve --listen "$PRKDB_SERVER" --http none --data-dir "$work/data" \
  >"$work/ready" 2>>"$work/log" &
node=$!
until_ready "the node did not start after a failed sync"
for n in $(seq "$last"); do
  [ "$(prkdb get "synced-$n")" = "$n" ] || fail "synced-$n was acknowledged and is gone"
done
echo "sync failed after $last puts: exit 5 for the writer, 13 for the node; all $last are there"
