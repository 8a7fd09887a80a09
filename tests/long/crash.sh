#!/usr/bin/env bash
# The long run of the crash tests: power cuts and kills on a simulated disk under logs and shards with
# checkpoints, cleanings and snapshots, 20 times with other seeds, or --rounds N.
# usage: tests/long.sh crash [--rounds N]
set -euo pipefail
shift
rounds=20
while (($#)); do
  case $1 in
    --rounds) rounds=${2:?--rounds takes a number}; shift 2 ;;
    *) echo "crash: unknown option $1" >&2; exit 2 ;;
  esac
done
export PRKDB_CRASH_ROUNDS=$rounds
exec cargo test --locked --workspace --test crash -- --nocapture after_any_power_cut without_losing_what_it_said
