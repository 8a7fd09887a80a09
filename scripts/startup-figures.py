#!/usr/bin/env python3
"""Measures what a checkpoint saves a start, and what it costs while keys are written.

usage: startup-figures.py PRKDB-BINARY [--keys 10000000] [--tail 67108864] [--results FILE.json]

A release build, on a machine that does nothing else. Keys of 16 bytes with values of 100 are put into a new
node, then more of them again until a checkpoint is taken, then --tail bytes more. The node is killed with
SIGKILL and started: from the checkpoint, and, without its manifest, from the whole log; both with a cold page
cache where the script may drop it (root). A node is ready when it says so; what was read is its own count,
prkdb_recovery_bytes. While keys are written, the rate is sampled ten times a second, inside of checkpoints (as
long as a *.checkpoint-new lies there) and outside.

Figures go to stdout as Markdown, raw ones to the results file. Works in a new directory below the current one,
which needs about 400 bytes for each key.
"""

import argparse
import glob
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

VALUE = b"v" * 100
LINE_BYTES = 16 + 1 + len(VALUE) + 1
DATA_SHARD = "shard-0000000001"


def say(text):
    print(text, file=sys.stderr, flush=True)


def lines(first, count):
    """CSV of keys and values, in pieces."""
    for start in range(first, first + count, 10_000):
        numbers = range(start, min(start + 10_000, first + count))
        # Scattered over all there are: what neighbours have in common is little.
        keys = ((number * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF for number in numbers)
        yield b"".join(b"%016x,%s\n" % (key, VALUE) for key in keys)


class Node:
    def __init__(self, binary, work):
        self.binary, self.dir = binary, os.path.join(work, "data")
        begun = time.monotonic()
        self.process = subprocess.Popen(
            [binary, "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", self.dir],
            stdout=subprocess.PIPE, stderr=open(os.path.join(work, "log"), "a"), text=True,
        )
        line = self.process.stdout.readline()
        self.ready_s = time.monotonic() - begun
        if not line:
            raise SystemExit("the node did not start")
        self.server = re.search(r"grpc=(\S+)", line)[1]
        self.http = re.search(r"http=(\S+)", line)[1]

    def metric(self, name):
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=30) as reply:
            found = re.search(rf"^{re.escape(name)} (\S+)", reply.read().decode(), re.M)
        return float(found[1]) if found else 0.0

    def of_shard(self, name):
        return self.metric(f'prkdb_{name}{{shard="1"}}')

    def checkpoints(self):
        return self.metric("prkdb_checkpoint_seconds_count")

    def put(self, first, count):
        command = [self.binary, "--server", self.server, "--timeout", "0", "batch-put", "-", "--format", "csv",
                   "--key-column", "1", "--value-column", "2"]
        load = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        for piece in lines(first, count):
            load.stdin.write(piece)
        load.stdin.close()
        if load.wait() != 0:
            raise SystemExit("batch-put failed")

    def rss_mib(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"RssAnon:\s+(\d+)", file.read())[1]) / 1024

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


class Rates:
    """Bytes appended in a second, inside and outside of checkpoints."""

    def __init__(self, node):
        self.node, self.inside, self.outside = node, [], []
        self.is_done = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def sample(self):
        under_way = bool(glob.glob(os.path.join(self.node.dir, DATA_SHARD, "*.checkpoint-new")))
        return time.monotonic(), self.node.metric("prkdb_append_bytes_total"), under_way

    def watch(self):
        before = self.sample()
        while not self.is_done.wait(0.1):
            now = self.sample()
            rate = (now[1] - before[1]) / (now[0] - before[0])
            if before[2] == now[2]:
                (self.inside if now[2] else self.outside).append(rate)
            before = now

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_done.set()
        self.thread.join()


def cold():
    """Empties the page cache, where that is allowed."""
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("3")
        return True
    except OSError:
        return False


def start(binary, work, name):
    is_cold = cold()
    node = Node(binary, work)
    figures = {
        "start": name, "cold": is_cold, "ready_s": node.ready_s,
        "read_bytes": node.of_shard("recovery_bytes"), "recovery_s": node.of_shard("recovery_seconds"),
        "keys": node.of_shard("keys"), "index_bytes": node.of_shard("index_bytes"), "rss_mib": node.rss_mib(),
    }
    say(f"  {name}: ready after {node.ready_s:.2f} s, {figures['read_bytes'] / 1e6:,.0f} MB read")
    return node, figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--keys", type=int, default=10_000_000)
    parser.add_argument("--tail", type=int, default=64 << 20)
    parser.add_argument("--results")
    args = parser.parse_args()
    binary = os.path.realpath(args.binary)
    document = {"schema": "prkdb.startup-figures/1", "keys": args.keys, "tail": args.tail}
    with tempfile.TemporaryDirectory(dir=".") as work:
        node = Node(binary, work)
        say(f"{args.keys:,} keys")
        with Rates(node) as rates:
            begun = time.monotonic()
            node.put(0, args.keys)
            took = time.monotonic() - begun
        taken, again = node.checkpoints(), 0
        while node.checkpoints() == taken:
            # Again, from the first: the number of keys stays.
            node.put(again * 100_000, 100_000)
            again += 1
        node.put(0, args.tail // LINE_BYTES)
        document |= {
            "put_s": took, "checkpoints": taken + 1,
            "checkpoint_seconds": node.metric("prkdb_checkpoint_seconds_sum"),
            "checkpoint_bytes": node.metric("prkdb_checkpoint_bytes_total"),
            "log_bytes": node.metric("prkdb_append_bytes_total"),
            "rate_inside": rates.inside, "rate_outside": rates.outside, "rss_mib": node.rss_mib(),
        }
        node.kill()
        document["starts"] = []
        for name in ["checkpoint", "checkpoint", "checkpoint", "whole log"]:
            if name == "whole log":
                for path in glob.glob(os.path.join(node.dir, "shard-*", "MANIFEST")):
                    os.remove(path)
            node, figures = start(binary, work, name)
            document["starts"].append(figures)
            node.kill()
    if args.results:
        with open(args.results, "w") as file:
            json.dump(document, file, indent=1)
            file.write("\n")
    print("| start | ready, s | read, MB | keys | index, bytes per key | memory, MiB |\n|---|---|---|---|---|---|")
    for each in document["starts"]:
        per_key = each["index_bytes"] / max(1, each["keys"])
        print(f"| {each['start']}{', cold' if each['cold'] else ''} | {each['ready_s']:.2f} "
              f"| {each['read_bytes'] / 1e6:,.0f} | {each['keys']:,.0f} | {per_key:.1f} | {each['rss_mib']:,.0f} |")
    inside, outside = document["rate_inside"], document["rate_outside"]
    middle = lambda rates: f"{statistics.median(rates) / 1e6:,.0f} ({len(rates)} samples)" if rates else "none"
    print(f"\nLog {document['log_bytes'] / 1e6:,.0f} MB, {document['checkpoints']:.0f} checkpoints of "
          f"{document['checkpoint_bytes'] / 1e6:,.0f} MB in {document['checkpoint_seconds']:.1f} s.")
    print(f"MB/s appended inside of checkpoints {middle(inside)}, outside {middle(outside)}.")


if __name__ == "__main__":
    main()
