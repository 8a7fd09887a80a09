#!/usr/bin/env python3
"""Measures what cleaning costs the writers, and how much of the disk it leaves.

usage: cleaning-figures.py PRKDB-BINARY [--rounds 3] [--seconds 40] [--keys 200000] [--value 500] [--results FILE.json]

A release build, as root, on a machine that does nothing else. In each round two nodes run, one after the other, with the
same load: the same keys are put again and again, as fast as it goes, into a collection that is compacted on the
one node and kept whole on the other; beside that a producer sends batches of 100 records, one at a time, and
times them. Figures: the latencies of the producer, and how often the log was synced for how long; for the
compacted collection also the bytes of the log, sampled ten times a second after the first checkpoint, against
what is alive.

Every answer that took more than 50 ms is a stall, and what happened meanwhile is looked up. The node says for
each group of its log how long the write and the sync took (--log-level prkdb::driver=trace). Beside it runs a
program that does nothing but touch 16 MiB of its own memory 50 times a second, and notes when that takes processor
time: on a virtual machine that is when the host took the memory away, and it takes it from the node too. On each
processor a timer with real-time priority notes when it is late: then the host, or an interrupt, had the processor. A
stall is explained by syncs if not more than 50 ms of it are without one; otherwise it is the machine's if the other
program stalled within it or if not more than 50 ms are left without the time that a processor was away; otherwise it
is ours.

Figures go to stdout as Markdown, raw ones to the results file. Works in a new directory below the current one,
which needs room for --seconds of writing.
"""

import argparse
import datetime
import json
import multiprocessing
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
# A sweep over the memory takes a hundredth of that where nothing is taken away.
SWEEP_BYTES, SWEEP_CPU_S, SWEEP_PAUSE_S = 16 << 20, 0.005, 0.020
# A timer with real-time priority is late by a twentieth of that where the processor is there.
TICK_S, LATE_S = 0.002, 0.003


def say(text):
    print(text, file=sys.stderr, flush=True)


class Node:
    def __init__(self, binary, work):
        self.binary, self.dir = binary, os.path.join(work, "data")
        self.log = os.path.join(work, "log")
        words = "serve --listen 127.0.0.1:0 --http 127.0.0.1:0 --log-format json --log-level warn,prkdb::driver=trace"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen([binary, *words.split(), "--data-dir", self.dir],
                                            stdout=subprocess.PIPE, stderr=log, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the node did not start")
        self.server = re.search(r"grpc=(\S+)", line)[1]
        self.http = re.search(r"http=(\S+)", line)[1]

    def run(self, line, *before, **more):
        words = [*before, self.binary, "--server", self.server, *line.split()]
        return subprocess.run(words, check=True, text=True, **more)

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


def groups_of_log(path):
    """When the data shard wrote and synced its groups: begun, written and synced, since 1970."""
    found = []
    with open(path) as lines:
        for line in lines:
            said = json.loads(line)
            fields = said["fields"]
            if fields["message"] in ("slow disk", "synced") and fields["shard"] == 1:
                synced = datetime.datetime.fromisoformat(said["timestamp"].replace("Z", "+00:00")).timestamp()
                written = synced - fields["synced_us"] / 1e6
                found.append((written - fields["wrote_us"] / 1e6, written, synced))
    return found


def touch(until, found):
    """Touches memory again and again; puts down when that took processor time: begun, ended."""
    memory = bytearray(b"1") * SWEEP_BYTES
    pages, slow = bytes(SWEEP_BYTES // 4096), []
    while time.time() < until:
        begun, used = time.time(), time.thread_time()
        memory[::4096] = pages
        if time.thread_time() - used > SWEEP_CPU_S:
            slow.append((begun, time.time()))
        time.sleep(SWEEP_PAUSE_S)
    found.put(slow)


def tick(cpu, until, found):
    """Sleeps again and again on one processor, before all others; puts down when that took too long: begun, ended."""
    os.sched_setaffinity(0, {cpu})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    late = []
    while time.time() < until:
        begun = time.time()
        time.sleep(TICK_S)
        ended = time.time()
        if ended - begun > TICK_S + LATE_S:
            late.append((begun + TICK_S, ended))
    found.put(late)


def shared(spans, begun, ended):
    """How much of a time lies in one of the spans."""
    total, reached = 0.0, begun
    for one, other in sorted(spans):
        one, other = max(one, reached), min(other, ended)
        total, reached = total + max(0.0, other - one), max(reached, other)
    return total


def stalls(slowest, groups, taken, away):
    """Says for each answer that took more than 50 ms what was under way, and what explains it."""
    found = []
    for slow in slowest:
        took, ended = slow["us"] / 1e6, slow["ended_ms"] / 1e3
        if took <= STALL_S:
            continue
        begun = ended - took
        syncing = shared([(written, synced) for _, written, synced in groups], begun, ended)
        writing = shared([(started, written) for started, written, _ in groups], begun, ended)
        stopped = shared(taken, begun, ended)
        syncs = [(written, synced) for _, written, synced in groups]
        absent = shared(syncs + away, begun, ended) - syncing
        reason = "ours"
        if took - syncing <= STALL_S:
            reason = "syncs"
        elif stopped > 0 or took - syncing - absent <= STALL_S:
            reason = "machine"
        found.append({"ms": took * 1e3, "ended": ended, "syncing_ms": syncing * 1e3, "writing_ms": writing * 1e3,
                      "machine_ms": stopped * 1e3, "away_ms": absent * 1e3, "reason": reason})
    return found


class Load(threading.Thread):
    """The same file again and again."""

    def __init__(self, node, path, until):
        super().__init__()
        self.node, self.path, self.until, self.times = node, path, until, 0

    def run(self):
        while time.monotonic() < self.until:
            # On a machine of its own it would take no processor from the node either.
            self.node.run(f"batch-put {self.path} -c load --timeout 0", "nice", "-n", "10", stdout=subprocess.DEVNULL)
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


def measure(binary, cleanup, path, seconds):
    with tempfile.TemporaryDirectory(dir=".", prefix="cleaning-") as work:
        node = Node(binary, work)
        try:
            node.run(f"collection create load --cleanup {cleanup}", stdout=subprocess.DEVNULL)
            until = time.monotonic() + seconds
            load, disk = Load(node, path, until), Disk(node, until)
            result = os.path.join(work, "result.json")
            words = f"bench produce --duration {seconds - 4}s --in-flight 1 --batch-size 100 --result {result}"
            taken = multiprocessing.Queue()
            touching = multiprocessing.Process(target=touch, args=(time.time() + seconds, taken))
            touching.start()
            away = multiprocessing.Queue()
            ticking = [multiprocessing.Process(target=tick, args=(cpu, time.time() + seconds, away))
                       for cpu in sorted(os.sched_getaffinity(0))]
            for one in ticking:
                one.start()
            load.start()
            disk.start()
            # It refuses to measure on a busy machine, and here the load is what is measured: it is not told.
            unseen = ["unshare", "--mount", "sh", "-c", 'mount --bind /dev/null /proc/stat && exec "$@"', "sh"]
            subprocess.run([*unseen, binary, "--server", node.server, *words.split()], check=True,
                           stdout=subprocess.DEVNULL)
            load.join()
            disk.join()
            taken = taken.get()
            touching.join()
            away = [span for _ in ticking for span in away.get()]
            for one in ticking:
                one.join()
            text = node.metrics()
            with open(result) as file:
                bench = json.load(file)["figures"][0]
            appended = node.metric(text, "prkdb_append_bytes_total")
            return {
                "cleanup": cleanup,
                "latency_us": bench["latency_us"],
                "produced_bytes_per_s": bench["value"],
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
                "live_bytes": os.path.getsize(path) + int(bench["value"] * (seconds - 4)),
                "memory_taken": len(taken),
                "processor_away_ms": sum(1e3 * (ended - begun) for begun, ended in away),
                "stalls": stalls(bench["slowest"], groups_of_log(node.log), taken, away),
            }
        finally:
            node.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=40)
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--value", type=int, default=500)
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
                found = measure(binary, cleanup, os.path.abspath(file.name), args.seconds)
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
        ("limit, MB", lambda found: (2 * found["live_bytes"] + 2**30) / 1e6),
        ("log at the end, MB", lambda found: found["disk_last_bytes"] / 1e6),
    ]:
        print(f"| {name} | {median('keep', of):.1f} | {median('compact', of):.1f} |")

    def counted(cleanup, *reasons):
        return sum(stall["reason"] in reasons for found in rounds if found["cleanup"] == cleanup
                   for stall in found["stalls"])

    for name, reasons in [
        ("stalls above 50 ms, all rounds", ("syncs", "machine", "ours")),
        ("not explained by syncs", ("machine", "ours")),
        ("nor by the machine", ("ours",)),
    ]:
        print(f"| {name} | {counted('keep', *reasons)} | {counted('compact', *reasons)} |")


main()
