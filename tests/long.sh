#!/usr/bin/env bash
# Runs that are too long for every change; docs/TESTING.md has their figures.
# usage: tests/long.sh TIER [--budget TIME] [OPTIONS...]
#   fuzz    mutates what every parser reads. --budget is the time of each target (default 10m).
#           [--jobs N] so many at a time (default: one for each core), [TARGET...] only these.
#   model   runs 10,000 cases of operations on a shard against a map, or PRKDB_MODEL_CASES.
#   crash   cuts the power on a simulated disk, 20 times as often as each change does, or --rounds N times.
#   power   cuts the power under a node, 500 times or --cuts N; needs root. --budget does not end it.
# A tier is a file in tests/long, which gets the budget in seconds and the other options.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
fail() { echo "long.sh: $*" >&2; exit 2; }

# 90, 90s, 10m or 2h, in seconds.
seconds() {
  [[ $1 =~ ^([0-9]+)([smh]?)$ ]] || fail "--budget $1: write 90s, 10m or 2h"
  case ${BASH_REMATCH[2]} in
    m) echo $((BASH_REMATCH[1] * 60)) ;;
    h) echo $((BASH_REMATCH[1] * 3600)) ;;
    *) echo "${BASH_REMATCH[1]}" ;;
  esac
}

tier=${1:-}
[[ -n $tier && -f $root/tests/long/$tier.sh ]] || { sed -n '2,/^set/{/^set/d;s/^# //;p}' "$0" >&2; exit 2; }
shift
budget=600
options=()
while (($#)); do
  case $1 in
    --budget) budget=$(seconds "${2:?--budget takes a time}"); shift 2 ;;
    *) options+=("$1"); shift ;;
  esac
done
cd "$root"
exec bash "tests/long/$tier.sh" "$budget" "${options[@]}"
