#!/usr/bin/env bash
# The long run of the model tests: 10,000 random sequences of operations, restarts and crashes included.
# usage: tests/long.sh model
set -euo pipefail
export PRKDB_MODEL_CASES=${PRKDB_MODEL_CASES:-10000}
exec cargo test --locked --workspace --lib -- --nocapture the_engine_agrees_with_a_map
