#!/usr/bin/env bash
# Loads all flights, kills the node in the middle, resumes from the checkpoint, and compares.
# usage: flights-resume.sh PRKDB-BINARY
set -euo pipefail
binary=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
node=
stop() {
  [ -z "$node" ] || kill -9 "$node" 2>/dev/null || true
  rm -rf "$work"
}
trap stop EXIT

columns=year,month,day,carrier,flight,origin,sched_dep_time
zstd -dqc "$here/../examples/data/flights.csv.zst" >"$work/flights.csv"

serve() {
  : >"$work/ready"
  "$binary" serve --listen "$1" --http none --data-dir "$work/data" >"$work/ready" 2>>"$work/log" &
  node=$!
  for _ in $(seq 1000); do
    grep -q '^prkdb ready' "$work/ready" && return
    kill -0 "$node" || { cat "$work/log" >&2; exit 1; }
    sleep 0.01
  done
  exit 1
}

serve 127.0.0.1:0
address=$(sed -n 's/.*grpc=\([^ ]*\).*/\1/p' "$work/ready")
export PRKDB_SERVER=$address
prkdb() { "$binary" "$@"; }
prkdb collection create flights --partitions 3
load=(batch-put "$work/flights.csv" --collection flights --format csv
  --key-column "$columns" --checkpoint "$work/load.json")

# Slowed down, so that the kill meets it in the middle; it gives up soon, and the checkpoint stays.
prkdb "${load[@]}" --rate 150000/s --timeout 2s --retries 1 >"$work/first" 2>&1 &
first=$!
until [ -s "$work/load.json" ] && [ "$(sed -n 's/.*"put": *\([0-9]*\).*/\1/p' "$work/load.json" | head -n 1)" -gt 100000 ]; do
  kill -0 "$first" || { cat "$work/first"; exit 1; }
  sleep 0.02
done
kill -9 "$node"
wait "$node" 2>/dev/null || true
code=0
wait "$first" || code=$?
echo "killed in the middle: batch-put ended with $code: $(tail -n 1 "$work/first")"
[ "$code" -ne 0 ]

serve "$address"
prkdb "${load[@]}" --resume
echo "scan --count: $(prkdb scan --collection flights --count)"
prkdb scan --collection flights -o ndjson |
  python3 "$here/flights-check.py" "$work/flights.csv" "$columns"
