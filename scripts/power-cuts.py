#!/usr/bin/env python3
"""Cuts the power under a node, on a real file system, again and again, and looks for what was acknowledged.

usage: power-cuts.py PRKDB-BINARY [--cuts 30] [--seed N]

Needs root: ext4 on a loop device is shut down by its own ioctl (EXT4_IOC_SHUTDOWN), which stops every write to the
device at once, half of the times after its journal was flushed and half without. Then the node is killed, the file
system unmounted, so that nothing of it is left in memory, and mounted again: its journal is replayed, and what was
not synced is gone. The node is started on what is left. Segments and checkpoints are small, one collection is
compacted and one has a retention, so that rolling, checkpoints and cleanings are under way all the time.

Fails if an acknowledged value or event is not there, if an event stands twice or out of order, or if the node does
not start. What was under way may be there or not; a value is the last one acknowledged or one sent after it.
"""

import argparse
import fcntl
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
LOG_FLUSH, NO_LOG_FLUSH = 1, 2
KEYS = 60


def say(text):
    print(text, flush=True)


def fail(text):
    raise SystemExit(f"FAILED: {text}")


class Disk:
    """A file system that can be shut down."""

    def __init__(self, work):
        self.image, self.at = os.path.join(work, "image"), os.path.join(work, "disk")
        os.mkdir(self.at)
        # A node that is killed every second or two cleans less than it writes: in 500 cuts that is about 1 GB.
        subprocess.run(["truncate", "-s", "4G", self.image], check=True)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", self.image], check=True)
        self.mount()

    def mount(self):
        subprocess.run(["mount", "-o", "loop", self.image, self.at], check=True)

    def cut(self, how):
        handle = os.open(self.at, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, SHUTDOWN, struct.pack("I", how))
        finally:
            os.close(handle)

    def unmount(self):
        for _ in range(100):
            if subprocess.run(["umount", self.at], stderr=subprocess.DEVNULL).returncode == 0:
                return
            time.sleep(0.05)
        fail("the file system cannot be unmounted")


class Node:
    def __init__(self, binary, disk, log):
        self.binary = binary
        self.process = subprocess.Popen(
            [binary, "serve", "--listen", "127.0.0.1:0", "--http", "none", "--data-dir", f"{disk.at}/data",
             "--segment-bytes", "128KiB", "--checkpoint-bytes", "128KiB"],
            stdout=subprocess.PIPE, stderr=log, text=True,
        )
        line = self.process.stdout.readline()
        if "grpc=" not in line:
            fail(f"the node did not start: exit code {self.process.wait()}")
        self.server = line.split("grpc=")[1].split()[0]

    def command(self, *words):
        return [self.binary, "--server", self.server, "--retries", "0", *words]

    def run(self, *words):
        return subprocess.run(self.command(*words), capture_output=True, text=True)

    def must(self, *words):
        done = self.run(*words)
        if done.returncode != 0:
            fail(f"{' '.join(words)}: {done.stderr}")
        return done.stdout

    def kill(self):
        self.process.kill()
        self.process.wait()


class Puts(threading.Thread):
    """Puts values under keys of its own, one after the other, until the first that fails."""

    def __init__(self, node, number, known):
        super().__init__()
        self.node, self.number, self.known = node, number, known
        self.acked, self.in_doubt = 0, None

    def run(self):
        rng = random.Random(self.number * 7919 + len(self.known))
        while True:
            key = f"key-{self.number}-{rng.randrange(KEYS)}"
            value = f"{rng.getrandbits(64):016x}" * rng.randrange(1, 60)
            self.in_doubt = (key, value)
            if self.node.run("put", key, value, "-c", "compacted").returncode != 0:
                return
            self.known[key] = value
            self.in_doubt = None
            self.acked += 1


class Events(threading.Thread):
    """Appends numbered events as fast as they are acknowledged."""

    def __init__(self, node, first):
        super().__init__()
        self.node, self.first, self.last_acked, self.sent = node, first, None, first

    def run(self):
        command = self.node.command("produce", "events", "-", "--print-offsets", "-o", "ndjson", "--batch-size", "50")
        producer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                    stderr=subprocess.DEVNULL, text=True)
        writer = threading.Thread(target=self.feed, args=(producer.stdin,))
        writer.start()
        acked = 0
        for line in producer.stdout:
            row = json.loads(line)
            if "offset" in row:
                acked += 1
        producer.wait()
        writer.join()
        # One partition, in order: so many from the first on are acknowledged.
        self.acked = acked

    def feed(self, pipe):
        try:
            while True:
                pipe.write(f"event {self.sent} {'x' * (self.sent % 700)}\n")
                self.sent += 1
                if self.sent % 50 == 0:
                    pipe.flush()
                    time.sleep(0.002)
        except BrokenPipeError:
            pass
        finally:
            try:
                pipe.close()
            except BrokenPipeError:
                pass


def check(node, known, writers, events, acked_events):
    """Returns the events that are there."""
    doubts = dict(writer.in_doubt for writer in writers if writer.in_doubt)
    found = {}
    for line in node.must("scan", "-c", "compacted", "-o", "ndjson").splitlines():
        row = json.loads(line)
        found[row["key"]] = row["value"]
    for key, value in known.items():
        if found.get(key) not in (value, doubts.get(key, value)):
            fail(f"{key} is {found.get(key)!r}, and was {value!r}")
    for key, value in found.items():
        if value not in (known.get(key), doubts.get(key)):
            fail(f"{key} is {value!r}, which nobody put")
    values = node.must("consume", "events", "--exit-at-end", "-o", "ndjson").splitlines()
    numbers = [int(json.loads(line)["value"].split()[1]) for line in values]
    if any(after != before + 1 for before, after in zip(numbers, numbers[1:])):
        fail("events are missing in the middle, stand twice or out of order")
    # The first ones may have gone, by the retention.
    end = numbers[-1] + 1 if numbers else 0
    if end < acked_events:
        fail(f"{acked_events} events were acknowledged, {end} are there")
    return found, end


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--cuts", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng, binary = random.Random(args.seed), os.path.abspath(args.binary)
    with tempfile.TemporaryDirectory() as work, open(os.path.join(work, "log"), "w+") as log:
        disk, node = Disk(work), None
        try:
            node = Node(binary, disk, log)
            node.must("collection", "create", "compacted", "--partitions", "1", "--cleanup", "compact")
            node.must("collection", "create", "events", "--partitions", "1", "--no-index", "--retention", "400KiB")
            known, there, unanswered, puts = {}, 0, 0, 0
            for cut in range(args.cuts):
                writers = [Puts(node, number, {}) for number in range(2)]
                for writer in writers:
                    writer.known = known
                events = Events(node, there)
                for thread in [*writers, events]:
                    thread.start()
                time.sleep(rng.uniform(0.05, 2.4))
                disk.cut(rng.choice([LOG_FLUSH, NO_LOG_FLUSH]))
                # What does not notice by itself is told by the end of the node.
                time.sleep(rng.choice([0, 0.02, 0.2]))
                node.kill()
                for thread in [*writers, events]:
                    thread.join()
                disk.unmount()
                disk.mount()
                node = Node(binary, disk, log)
                puts += sum(writer.acked for writer in writers)
                unanswered += sum(writer.in_doubt is not None for writer in writers) + (events.sent > there + events.acked)
                known, there = check(node, known, writers, events, there + events.acked)
            history = [name for name in os.listdir(f"{disk.at}/data/shard-0000000001") if name.endswith(".history")]
            say(f"{args.cuts} power cuts: {puts} puts and {there} events acknowledged and there, "
                f"{unanswered} writes were under way; {len(history)} segments of history at the end")
            if not history or puts == 0 or there == 0:
                fail("nothing was cleaned, put or produced: the cuts prove nothing")
        except BaseException:
            log.seek(0)
            sys.stderr.write("".join(log.readlines()[-30:]))
            raise
        finally:
            if node:
                node.kill()
            disk.unmount()


signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
main()
