#!/usr/bin/env python3
"""Measures what cleaning costs the writers, and how much of the disk it leaves.

usage: cleaning-figures.py PRKDB-BINARY [--rounds 3] [--seconds 40] [--keys 200000] [--value 500] [--trace]
                           [--results FILE.json]

A release build, as root, on a machine that does nothing else. In each round two nodes run, one after the other, with the
same load: the same keys are put again and again, as fast as it goes, into a collection that is compacted on the
one node and kept whole on the other; beside that a producer sends batches of 100 records, one at a time, and
times them. Figures: the latencies of the producer, and how often the log was synced for how long; for the
compacted collection also the bytes of the log, sampled ten times a second after the first checkpoint, against
what is alive.

With --trace, which takes strace, it is seen for every stall what the disk did meanwhile: a time of more than 50 ms
between two answers to the producer is explained if it is not more than 50 ms without the time in which the node had
a sync under way.

Figures go to stdout as Markdown, raw ones to the results file. Works in a new directory below the current one,
which needs room for --seconds of writing.
"""

import argparse
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

DATA_SHARD = "shard-0000000001"
STALL_S = 0.050
# strace is the grandchild: the process is the one that is measured.
STRACE = ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-ttt", "-T", "-e", "signal=none"]


def say(text):
    print(text, file=sys.stderr, flush=True)


class Node:
    def __init__(self, binary, work, traced):
        self.binary, self.dir = binary, os.path.join(work, "data")
        self.syncs = os.path.join(work, "syncs")
        trace = [*STRACE, "-e", "trace=fdatasync,fsync", "-o", self.syncs] if traced else []
        self.process = subprocess.Popen(
            [*trace, binary, "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", self.dir],
            stdout=subprocess.PIPE, stderr=open(os.path.join(work, "log"), "a"), text=True,
        )
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the node did not start")
        self.server = re.search(r"grpc=(\S+)", line)[1]
        self.http = re.search(r"http=(\S+)", line)[1]

    def run(self, line, **more):
        return subprocess.run([self.binary, "--server", self.server, *line.split()], check=True, text=True, **more)

    def metrics(self):
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=30) as reply:
            return reply.read().decode()

    def metric(self, text, name):
        found = re.search(rf"^{re.escape(name)} (\S+)", text, re.M)
        return float(found[1]) if found else 0.0

    def slow_syncs(self, text):
        """Syncs that took more than 41 ms: the bound of a bucket next to 50."""
        buckets = re.findall(r'^prkdb_fsync_seconds_bucket\{le="([^"]+)"\} (\d+)', text, re.M)
        below = max((int(n) for le, n in buckets if le != "+Inf" and float(le) <= 0.041), default=0)
        return int(self.metric(text, "prkdb_fsync_seconds_count")) - below

    def longest_sync_ms(self, text):
        """The bound of the bucket that the longest sync is in."""
        buckets = re.findall(r'^prkdb_fsync_seconds_bucket\{le="([^"]+)"\} (\d+)', text, re.M)
        count = int(self.metric(text, "prkdb_fsync_seconds_count"))
        return 1000 * min(float(le) for le, below in buckets if int(below) == count)

    def log_bytes(self):
        total = 0
        with os.scandir(os.path.join(self.dir, DATA_SHARD)) as files:
            for file in files:
                try:
                    total += file.stat().st_blocks * 512
                except FileNotFoundError:
                    pass
        return total

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def calls(path, name):
    """When each call of a trace began and ended, of those that returned something."""
    under_way, found = {}, []
    with open(path) as lines:
        for line in lines:
            whole = re.match(r"(\d+) +(\d+\.\d+) " + name + r"\(.*= (-?\d+).*<(\d+\.\d+)>$", line)
            begun = re.match(r"(\d+) +(\d+\.\d+) " + name + r"\(.*<unfinished \.\.\.>$", line)
            ended = re.match(r"(\d+) +(\d+\.\d+) <\.\.\. " + name + r" resumed>.*= (-?\d+)", line)
            if whole:
                at = float(whole[2])
                found.append((at, at + float(whole[4]), int(whole[3])))
            elif begun:
                under_way[begun[1]] = float(begun[2])
            elif ended and ended[1] in under_way:
                found.append((under_way.pop(ended[1]), float(ended[2]), int(ended[3])))
    return found


def stalls(syncs, answers):
    """Returns for each stall how long it was, how much of it a sync was under way, and the longest of those."""
    times = sorted(ended for _, ended, got in answers if got > 0)
    found = []
    for before, after in zip(times, times[1:]):
        if after - before <= STALL_S:
            continue
        inside = sorted((begun, ended) for begun, ended, _ in syncs if begun < after and ended > before)
        covered, reached = 0.0, before
        for begun, ended in inside:
            begun, ended = max(begun, reached), min(ended, after)
            covered, reached = covered + max(0.0, ended - begun), max(reached, ended)
        longest = max((ended - begun for begun, ended in inside), default=0.0)
        found.append({"ms": (after - before) * 1000, "syncing_ms": covered * 1000, "longest_sync_ms": longest * 1000})
    return found


class Load(threading.Thread):
    """The same file again and again."""

    def __init__(self, node, path, until):
        super().__init__()
        self.node, self.path, self.until, self.times = node, path, until, 0

    def run(self):
        while time.monotonic() < self.until:
            self.node.run(f"batch-put {self.path} -c load --timeout 0", stdout=subprocess.DEVNULL)
            self.times += 1


class Disk(threading.Thread):
    def __init__(self, node, until):
        super().__init__()
        self.node, self.until, self.samples = node, until, []

    def run(self):
        while time.monotonic() < self.until:
            try:
                self.samples.append(self.node.log_bytes())
            except FileNotFoundError:
                return
            time.sleep(0.1)


def measure(binary, cleanup, path, seconds, traced):
    with tempfile.TemporaryDirectory(dir=".", prefix="cleaning-") as work:
        node = Node(binary, work, traced)
        answers = os.path.join(work, "answers")
        trace = [*STRACE, "-e", "trace=recvfrom", "-o", answers] if traced else []
        try:
            node.run(f"collection create load --cleanup {cleanup}", stdout=subprocess.DEVNULL)
            until = time.monotonic() + seconds
            load, disk = Load(node, path, until), Disk(node, until)
            result = os.path.join(work, "result.json")
            words = f"bench produce --duration {seconds - 4}s --in-flight 1 --batch-size 100 --result {result}"
            load.start()
            disk.start()
            # It refuses to measure on a busy machine, and here the load is what is measured: it is not told.
            unseen = ["unshare", "--mount", "sh", "-c", 'mount --bind /dev/null /proc/stat && exec "$@"', "sh"]
            subprocess.run([*unseen, *trace, binary, "--server", node.server, *words.split()], check=True,
                           stdout=subprocess.DEVNULL)
            load.join()
            disk.join()
            text = node.metrics()
            with open(result) as file:
                bench = json.load(file)["figures"][0]
            appended = node.metric(text, "prkdb_append_bytes_total")
            found = {
                "cleanup": cleanup,
                "latency_us": bench["latency_us"],
                "produced_mb_s": bench["value"],
                "loads": load.times,
                "appended_bytes": appended,
                "append_mb_s": appended / seconds / 1e6,
                "slow_syncs": node.slow_syncs(text),
                "longest_sync_ms": node.longest_sync_ms(text),
                "cleanings": node.metric(text, "prkdb_clean_seconds_count"),
                "cleaned_bytes": node.metric(text, "prkdb_cleaned_bytes_total"),
                "clean_written_bytes": node.metric(text, "prkdb_clean_written_bytes_total"),
                "disk_max_bytes": max(disk.samples),
                "disk_last_bytes": node.log_bytes(),
            }
            if traced:
                syncs = [call for name in ("fdatasync", "fsync") for call in calls(node.syncs, name)]
                found["stalls"] = stalls(syncs, calls(answers, "recvfrom"))
            return found
        finally:
            node.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=40)
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--value", type=int, default=500)
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--results")
    args = parser.parse_args()
    binary = os.path.abspath(args.binary)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", dir=".") as file:
        value = "v" * args.value
        for number in range(args.keys):
            # Scattered over all there are.
            file.write(f"{number * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF:016x},{value}\n")
        file.flush()
        rounds = []
        for number in range(args.rounds):
            for cleanup in ("keep", "compact") if number % 2 == 0 else ("compact", "keep"):
                found = measure(binary, cleanup, os.path.abspath(file.name), args.seconds, args.trace)
                say(json.dumps(found))
                rounds.append(found)
                if args.results:
                    with open(args.results, "w") as results:
                        json.dump({"args": vars(args), "rounds": rounds}, results, indent=1)

    def median(cleanup, of):
        return statistics.median(of(found) for found in rounds if found["cleanup"] == cleanup)

    print("| | kept | compacted |\n|---|---|---|")
    for name, of in [
        ("produce p50, ms", lambda found: found["latency_us"]["p50"] / 1000),
        ("p99, ms", lambda found: found["latency_us"]["p99"] / 1000),
        ("p99.9, ms", lambda found: found["latency_us"]["p999"] / 1000),
        ("longest, ms", lambda found: found["latency_us"]["max"] / 1000),
        ("syncs above 41 ms", lambda found: found["slow_syncs"]),
        ("longest sync, ms, less than", lambda found: found["longest_sync_ms"]),
        ("log written, MB/s", lambda found: found["append_mb_s"]),
        ("cleanings", lambda found: found["cleanings"]),
        ("cleaned, MB", lambda found: found["cleaned_bytes"] / 1e6),
        ("left of it, MB", lambda found: found["clean_written_bytes"] / 1e6),
        ("log at most, MB", lambda found: found["disk_max_bytes"] / 1e6),
        ("log at the end, MB", lambda found: found["disk_last_bytes"] / 1e6),
    ]:
        print(f"| {name} | {median('keep', of):.1f} | {median('compact', of):.1f} |")
    if args.trace:
        def counted(cleanup, is_so):
            return sum(is_so(stall) for found in rounds if found["cleanup"] == cleanup for stall in found["stalls"])

        for name, is_so in [
            ("stalls above 50 ms, all rounds", lambda stall: True),
            ("not explained by syncs", lambda stall: stall["ms"] - stall["syncing_ms"] > 1000 * STALL_S),
        ]:
            print(f"| {name} | {counted('keep', is_so)} | {counted('compact', is_so)} |")


main()
