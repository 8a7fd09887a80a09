#!/usr/bin/env bash
# The long run of the fuzz targets: builds them, mutates each for so many seconds, and merges what was
# found into fuzz/corpus. Prints a row for each: executions, edges and features, corpus, findings.
# usage: tests/long.sh fuzz [--budget TIME] [--jobs N] [TARGET...]
set -euo pipefail
budget=$1
shift
jobs=$(nproc)
targets=()
while (($#)); do
  case $1 in
    --jobs) jobs=${2:?--jobs takes a number}; shift 2 ;;
    --*) echo "fuzz: unknown option $1" >&2; exit 2 ;;
    *) targets+=("$1"); shift ;;
  esac
done
# Of panics a place is told, so no sanitizer is needed: unsafe code stands in one file, and maps files.
build=(--sanitizer none --no-cfg-fuzzing --strip-dead-code=false)
target_dir=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
cargo +nightly --version >/dev/null || { echo "fuzz: needs a nightly toolchain" >&2; exit 1; }
cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --locked
cargo +nightly fuzz build "${build[@]}" --target-dir "$target_dir"
((${#targets[@]})) || mapfile -t targets < <(cargo +nightly fuzz list)

work=$target_dir/run
mkdir -p "$work"
# What the targets begin with is made by a test.
UPDATE=1 cargo test --quiet --test fuzz seeds_are_read >"$work/seeds.log" 2>&1 || {
  cat "$work/seeds.log" >&2
  exit 1
}

# Runs one target and merges what it found; a row of the table goes to its file.
run() {
  local name=$1 binary=$target_dir/$host/release/$1 dir=$work/$1 corpus=fuzz/corpus/$1
  rm -rf "$dir"
  mkdir -p "$dir/found" "$dir/artifacts" "$dir/merged" "$corpus"
  # Directories of nodes are made in memory where that is possible.
  [[ -d /dev/shm ]] && export TMPDIR=/dev/shm
  local status=0
  "$binary" "$dir/found" "$corpus" -max_total_time="$budget" -timeout=30 -rss_limit_mb=4096 \
    -print_final_stats=1 -artifact_prefix="$dir/artifacts/" >"$dir/log" 2>&1 || status=$?
  # Edges alone count for what is kept, and the fewest entries that cover them.
  "$binary" "$dir/merged" "$corpus" "$dir/found" -set_cover_merge=1 -use_counters=0 -max_len=2048 \
    -timeout=30 -rss_limit_mb=4096 >"$dir/merge.log" 2>&1 || status=$?
  if ((status == 0)); then
    find "$corpus" -type f ! -name 'seed-*' ! -name 'crash-*' -delete
    find "$dir/merged" -type f -exec cp {} "$corpus/" \;
  fi
  local executions cov ft
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$dir/log")
  read -r cov ft < <(sed -n 's/.*cov: \([0-9]*\) ft: \([0-9]*\).*/\1 \2/p' "$dir/log" | tail -n 1) || true
  printf '%-18s %12s %8s %8s %7s %9s\n' "$name" "${executions:--}" "${cov:--}" "${ft:--}" \
    "$(find "$corpus" -type f | wc -l)" "$(find "$dir/artifacts" -type f | wc -l)" >"$dir/row"
  return "$status"
}

failed=()
names=()
pids=()
reap() {
  wait "${pids[0]}" || failed+=("${names[0]}")
  pids=("${pids[@]:1}")
  names=("${names[@]:1}")
}
for name in "${targets[@]}"; do
  while ((${#pids[@]} >= jobs)); do reap; done
  run "$name" &
  pids+=($!)
  names+=("$name")
done
while ((${#pids[@]})); do reap; done

printf '%-18s %12s %8s %8s %7s %9s\n' target executions edges features corpus findings
for name in "${targets[@]}"; do cat "$work/$name/row"; done
if ((${#failed[@]})); then
  echo "fuzz: ${failed[*]} failed; logs and inputs are in $work/TARGET" >&2
  exit 1
fi
