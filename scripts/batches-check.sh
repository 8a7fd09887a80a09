#!/usr/bin/env bash
# Has another project's reader of Kafka's record format read PrkDB's batches: as Stream.Fetch sends
# them to a client that is not ours, and as they lie on disk. Each codec once as `prkdb produce` encodes
# it and once as that project does.
# usage: batches-check.sh PRKDB-BINARY
set -euo pipefail
binary=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
node=
stop() {
  [ -z "$node" ] || kill -9 "$node" 2>/dev/null || true
  [ -z "$node" ] || wait "$node" 2>/dev/null || true
  rm -rf "$work"
}
trap stop EXIT
fail() { echo "FAILED: $*" >&2; tail -n 20 "$work/log" >&2; exit 1; }

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check \
  kafka-python python-snappy lz4 zstandard crc32c grpcio grpcio-tools
check() { PYTHONDONTWRITEBYTECODE=1 "$work/venv/bin/python" "$here/batches-check.py" "$@"; }

# Small segments, so that the log has several.
serve() {
  rm -f "$work/ready"
  "$binary" serve --listen "$1" --http none --data-dir "$work/data" --segment-bytes 4MiB \
    --ready-file "$work/ready" >/dev/null 2>>"$work/log" &
  node=$!
  for _ in $(seq 3000); do
    [ ! -s "$work/ready" ] || return 0
    kill -0 "$node" 2>/dev/null || break
    sleep 0.01
  done
  fail "the node did not start"
}

serve 127.0.0.1:0
PRKDB_SERVER=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["grpc"])' "$work/ready")
export PRKDB_SERVER
prkdb() { "$binary" "$@"; }

sets=()
for codec in none gzip snappy lz4 zstd; do
  for who in prkdb kafka; do
    name=$who-$codec
    file=$work/$name.jsonl
    check make "$file" --set "$name" --records 8000
    prkdb collection create "$name" --partitions 1 --no-index
    if [ "$who" = prkdb ]; then
      prkdb produce "$name" "$file" --compression "$codec" --batch-bytes 64KiB
    else
      check send "$PRKDB_SERVER" "$file"
    fi
    sets+=("$file")
  done
done
check fetch "$PRKDB_SERVER" "${sets[@]}"

# The second start reads what the first wrote and goes on in another segment; the first ones are sealed
# and have sidecars from then on.
kill -9 "$node"
wait "$node" 2>/dev/null || true
serve "$PRKDB_SERVER"
prkdb put after restart
check fetch "$PRKDB_SERVER" "${sets[@]}"

kill -TERM "$node"
code=0
wait "$node" || code=$?
node=
[ "$code" -eq 0 ] || fail "the node ended with $code"
check log "$work/data" "${sets[@]}"
