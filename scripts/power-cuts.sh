#!/usr/bin/env bash
# Installs what power-cuts.py needs, and runs it.
# usage: power-cuts.sh PRKDB-BINARY [--cuts N] [--seed N]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
for tool in python3 losetup mkfs.ext4 mount umount; do
  command -v "$tool" >/dev/null || {
    apt-get update -qq && apt-get install -y -qq python3 e2fsprogs util-linux mount
    break
  }
done
exec python3 "$here/power-cuts.py" "$@"
