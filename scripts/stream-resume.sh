#!/usr/bin/env bash
# Produces all flights, kills the node in the middle, resumes from the checkpoint, and compares what is
# consumed with the file: all of it, and from a time on.
# usage: stream-resume.sh PRKDB-BINARY
set -euo pipefail
binary=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
node= producer=
stop() {
  for pid in $producer $node; do
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  rm -rf "$work"
}
trap stop EXIT
fail() { echo "FAILED: $*" >&2; tail -n 20 "$work/log" >&2; exit 1; }

# Tries a command for 30 s at most, as long as a process lives.
until_holds() {
  local pid=$1
  shift
  for _ in $(seq 3000); do
    if "$@"; then return; fi
    kill -0 "$pid" 2>/dev/null || return 1
    sleep 0.01
  done
  return 1
}

serve() {
  rm -f "$work/ready"
  "$binary" serve --listen "$1" --http none --data-dir "$work/data" --ready-file "$work/ready" \
    >/dev/null 2>>"$work/log" &
  node=$!
  until_holds "$node" test -s "$work/ready" || fail "the node did not start"
}

command -v zstd >/dev/null || { apt-get update -qq && apt-get install -y -qq zstd; }
zstd -dqc "$here/../examples/data/flights.csv.zst" >"$work/flights.csv"
third=$(($(wc -c <"$work/flights.csv") / 3))

serve 127.0.0.1:0
PRKDB_SERVER=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["grpc"])' "$work/ready")
export PRKDB_SERVER
prkdb() { "$binary" "$@"; }
prkdb collection create flights --partitions 3 --partitioner kafka --no-index
produce=(produce flights "$work/flights.csv" --key-column tailnum --timestamp-column time_hour
  --batch-bytes 16KiB --in-flight 16 --checkpoint "$work/produce.json")

# Small batches, many under way, slowed down: the kill meets it in the middle with answers missing. It
# gives up soon, and the checkpoint stays.
"$binary" "${produce[@]}" --rate 300000/s --timeout 2s --retries 1 >"$work/first" 2>&1 &
producer=$!
acknowledged() { grep -o '"byte_offset": *[0-9]*' "$work/produce.json" | grep -o '[0-9]*$' | head -n 1; }
a_third_is_acknowledged() { [ "$(acknowledged 2>/dev/null || true)" -gt "$third" ] 2>/dev/null; }
until_holds "$producer" a_third_is_acknowledged || fail "produce: $(cat "$work/first")"
kill -9 "$node"
wait "$node" 2>/dev/null || true
node=
code=0
wait "$producer" || code=$?
producer=
[ "$code" -ne 0 ] || fail "produce ended before the node was killed"
echo "killed in the middle: produce ended with $code: $(grep -v '^hint' "$work/first" | tail -n 1)"

serve "$PRKDB_SERVER"
prkdb "${produce[@]}" --resume
[ ! -e "$work/produce.json" ] || fail "a finished run left its checkpoint"

prkdb consume flights --exit-at-end -o ndjson >"$work/all.ndjson"
python3 "$here/stream-check.py" "$work/flights.csv" "$work/all.ndjson" --partitions 3

since=2013-06-01T00:00:00Z
prkdb consume flights --from "@$since" --exit-at-end -o ndjson >"$work/since.ndjson"
count=$(wc -l <"$work/since.ndjson")
echo "from $since: $count records"
[ "$count" -eq 309772 ] || fail "expected 309772 records"
python3 "$here/stream-check.py" "$work/flights.csv" "$work/since.ndjson" --partitions 3 --from "$since"
