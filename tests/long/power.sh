#!/usr/bin/env bash
# The long run of the power cuts: 500 of them under the release binary, on ext4 on a loop device.
# usage: tests/long.sh power [--cuts N] [--seed N]
set -euo pipefail
shift
cargo build --release --locked --quiet
exec scripts/power-cuts.sh "${CARGO_TARGET_DIR:-target}/release/prkdb" --cuts 500 "$@"
