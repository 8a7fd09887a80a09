#!/usr/bin/env python3
"""Measures produce and consume in rounds: the limit of the machine, PrkDB, and Apache Kafka beside it.

usage: stream-figures.py PRKDB-BINARY [--rounds 5] [--bytes 3221225472] [--results FILE.json]
                         [--kafka-dir DIR [--rk PROGRAM] [--delay PROGRAM]] [--sync-calls] [--before COMMAND]

A release build, on a machine that does nothing else. Every round measures every line once, one server
at a time: a node on a new directory, stopped before the broker is started, and the other way round.
Both get the same load: one partition, records of 100 random bytes without key, batches of 10,000
records, 1 MB, over loopback, and an acknowledgement from all replicas, of which there is one. PrkDB
syncs before it acknowledges; Kafka does where its topic has flush.messages=1, and is measured with and
without.

DIR holds kafka.sh (fetch, start, stop, env, topic; environment KAFKA_WORK) and rk.c, a client of
librdkafka that is built if --rk names none. Time from due to consumed is measured there by kafka-delay.c,
which lies beside this script and is built if --delay names none: like ours, it sends a batch's records at
once when they are due, and counts when the last of them was read. --sync-calls counts, with strace, what each server syncs for
100 records sent one after the other, in one more start of each. Every byte that PrkDB is given counts, a new
log's first ones too; Kafka's first records do not. A round takes four times --bytes of disk; `kafka.sh stop --wipe` removes what is left.

Raw figures go to the results file after every round, what happens to stderr, the table of medians as
Markdown to stdout.
"""

import argparse
import datetime
import json
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

RECORD_BYTES = 100
BATCH_RECORDS = 10_000
# What a record without key takes in a batch beside its value.
RECORD_OVERHEAD = 10

# How PrkDB is asked, and where the answers (prkdb.bench/1) have what. The limit is the figure of that name.
OURS = {
    "produce": "bench produce --bytes {bytes} --in-flight 16 --value-size 100 --batch-size 10000 --with-limits --data-dir {work}",
    "consume": "bench consume --bytes {bytes} --value-size 100 --batch-size 10000 --with-limits --data-dir {work}",
    "end to end": "bench consume --rate {half}/s --duration 5s --value-size 100 --batch-size 10000 --in-flight 16",
    "end to end, 125 MB/s": "bench consume --rate {common}/s --duration 5s --value-size 100 --batch-size 10000 --in-flight 16",
    "16k-1": "bench produce --bytes {half_bytes} --warmup 0 --in-flight 16 --value-size 100 --batch-bytes 16KiB --batch-size 10000",
    "16k-1000": "bench produce --bytes {half_bytes} --warmup 0 --in-flight 16 --value-size 100 --batch-bytes 16KiB --batch-size 10000 --partitions 1000",
    "put": "bench put --clients 1 --duration 3s --with-limits --data-dir {work}",
}
FIELDS = {
    "schema": ("schema",),
    "rate": ("figures", 0, "value"),
    "unit": ("figures", 0, "unit"),
    "p50_us": ("figures", 0, "latency_us", "p50"),
    "p99_us": ("figures", 0, "latency_us", "p99"),
    "limit": ("figures", 0, "limit"),
    "errors": ("errors",),
}
SCHEMA = "prkdb.bench/1"
# Which counter of the node rises by the bytes of batches; the processor's time is taken meanwhile.
COUNTERS = {"produce": "prkdb_append_bytes_total", "consume": "prkdb_fetch_bytes_total"}

# The client of Kafka: batches as large as ours, as many under way as it likes.
PRODUCE = [
    "linger.ms=5", "batch.num.messages=10000", "batch.size=1048576",
    "queue.buffering.max.messages=1000000", "acks=all",
]
CONSUME = ["fetch.message.max.bytes=8388608"]
PING = ["linger.ms=0", "acks=all"]
# Lingering for 1 ms gave the shortest delays of 0, 1 and 5.
DELAY = [
    "linger.ms=1", "batch.num.messages=10000", "batch.size=1048576",
    "queue.buffering.max.messages=1000000", "acks=all", "consumer.fetch.message.max.bytes=8388608",
]
DELAY_WARMUP_SECONDS, DELAY_SECONDS = 1, 5
# About half of what Kafka does with a sync for each batch: both carry it.
COMMON_RATE = 1_250_000
WARMUP_RECORDS = 2_000_000
PINGS = 3_000
TRIES = 5
# For --sync-calls.
COMMITS = 100
TOPICS = {"page": [], "sync": ["flush.messages=1"]}

TICKS = os.sysconf("SC_CLK_TCK")


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise SystemExit(f"{shlex.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mib(pid):
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read())[1]) / 1024


def wait_until_quiet():
    """Waits until 95 % of the processors were idle for a second: a busy machine gives no figures."""
    def idle():
        with open("/proc/stat") as file:
            fields = [int(word) for word in file.readline().split()[1:9]]
        return sum(fields), fields[3] + fields[4]

    for _ in range(120):
        before = idle()
        time.sleep(1)
        after = idle()
        if (after[1] - before[1]) / max(1, after[0] - before[0]) > 0.95:
            return
    raise SystemExit("the machine is busy: stop what else runs, and measure again")


def machine():
    def first(path, pattern):
        try:
            with open(path) as file:
                found = re.search(pattern, file.read())
            return found[1] if found else None
        except OSError:
            return None

    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "kernel": os.uname().release,
        "processor": first("/proc/cpuinfo", r"model name\s*: (.*)"),
        "processors": os.cpu_count(),
        "memory_kib": first("/proc/meminfo", r"MemTotal:\s+(\d+)"),
        "load": os.getloadavg(),
        "pressure": first("/proc/pressure/cpu", r"some (.*)"),
        "policy": run(["chrt", "-p", str(os.getpid())]) if os.path.exists("/usr/bin/chrt") else None,
    }


def pick(report, field):
    place = report
    for step in FIELDS[field]:
        try:
            place = place[step]
        except (KeyError, IndexError, TypeError):
            return None
    return place


def sync_calls(pids, load):
    """How often processes make each system call that syncs, during a load of COMMITS."""
    with tempfile.NamedTemporaryFile("r") as counted:
        command = ["strace", "-f", "-c", "-e", "trace=fsync,fdatasync,msync,sync_file_range"]
        command += ["-o", counted.name] + [word for pid in pids for word in ["-p", str(pid)]]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        # It says when it has attached.
        tracer.stderr.readline()
        load()
        tracer.send_signal(signal.SIGINT)
        tracer.communicate()
        rows = [line.split() for line in counted.read().splitlines()]
    return {row[-1]: int(row[3]) for row in rows if len(row) > 4 and row[3].isdigit() and row[-1] != "total"}


class Rise:
    """Processor time of a process while a counter of its metrics rises, and by how much it rose."""

    def __init__(self, pid, http, counter):
        self.pid, self.http, self.counter = pid, http, counter
        self.samples = []
        self.is_done = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def sample(self):
        try:
            with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=5) as reply:
                found = re.search(rf"^{self.counter} (\S+)", reply.read().decode(), re.M)
        except OSError:
            return
        if found:
            self.samples.append((processor_seconds(self.pid), float(found[1])))

    def watch(self):
        self.sample()
        while not self.is_done.wait(0.05):
            self.sample()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_done.set()
        self.thread.join()
        self.sample()

    def seconds_per_gb(self):
        """For each GB of values; None where there is no such counter or it stood still."""
        if not self.samples or self.samples[0][1] == self.samples[-1][1]:
            return None
        first, last = self.samples[0][1], self.samples[-1][1]
        begin = max(cpu for cpu, value in self.samples if value == first)
        end = min(cpu for cpu, value in self.samples if value == last)
        values = (last - first) * RECORD_BYTES / (RECORD_BYTES + RECORD_OVERHEAD)
        return (end - begin) / values * 1e9


class Ours:
    """A node on a directory of its own."""

    def __init__(self, binary, work):
        self.binary, self.work = binary, work
        command = [binary, "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
        begun = time.monotonic()
        self.node = subprocess.Popen(
            command + ["--data-dir", os.path.join(work, "data")],
            stdout=subprocess.PIPE, stderr=open(os.path.join(work, "log"), "w"), text=True,
        )
        line = self.node.stdout.readline()
        if not line:
            raise SystemExit("the node did not start")
        self.server = re.search(r"grpc=(\S+)", line)[1]
        self.http = re.search(r"http=(\S+)", line)[1]
        run([binary, "--server", self.server, "put", "first", "ack"])
        self.first_ack = time.monotonic() - begun
        self.half = 0

    def bench(self, what, records):
        wait_until_quiet()
        command = OURS[what].format(
            bytes=records * RECORD_BYTES, half_bytes=records * RECORD_BYTES // 2, half=self.half,
            common=COMMON_RATE, work=self.work,
        ).split()
        command = [self.binary, "--server", self.server, "--timeout", "0", "-o", "json"] + command
        for attempt in range(TRIES):
            rise = Rise(self.node.pid, self.http, COUNTERS.get(what, "prkdb_append_bytes_total"))
            try:
                with rise:
                    report = json.loads(run(command))
                break
            except SystemExit as error:
                # It says so itself where something else ran meanwhile.
                if "busy" not in str(error) or attempt + 1 == TRIES:
                    raise
                say(f"  {what}: the machine was busy, once more")
                wait_until_quiet()
        if pick(report, "schema") != SCHEMA or pick(report, "errors"):
            raise SystemExit(f"{what}: {json.dumps(report)}")
        figures = {field: pick(report, field) for field in FIELDS}
        if not figures["rate"]:
            raise SystemExit(f"{what}: nothing was counted, it ended within the warm-up: more --bytes")
        limits = [each["value"] for each in report["figures"] if each["figure"] == figures["limit"]]
        if limits:
            figures["limit_rate"] = limits[0]
            figures["ratio"] = figures["rate"] / limits[0]
        if what in COUNTERS:
            figures["cpu_s_per_gb"] = rise.seconds_per_gb()
        return figures | {"command": shlex.join(command[1:]), "report": report}

    def round(self, records):
        figures = {"start": {"first_ack_s": self.first_ack}}
        wait_until_quiet()
        figures["memory"] = {"idle_mib": rss_mib(self.node.pid)}
        for what in OURS:
            figures[what] = self.bench(what, records)
            if what == "produce":
                # Half of the records a second that were just seen.
                self.half = int(figures[what]["rate"] / RECORD_BYTES / 2)
            say(f"  {what}: {figures[what]['rate']:,.0f}")
        figures["memory"]["loaded_mib"] = rss_mib(self.node.pid)
        return figures

    def sync_calls(self):
        def load():
            for number in range(COMMITS):
                run([self.binary, "--server", self.server, "put", f"key-{number}", "value"])

        return sync_calls([self.node.pid], load)

    def stop(self):
        self.node.send_signal(signal.SIGTERM)
        self.node.wait()


class Kafka:
    """A broker that a script starts and stops."""

    def __init__(self, folder, rk, delay):
        self.script = os.path.join(folder, "kafka.sh")
        self.folder, self.rk, self.delay_client = folder, rk, delay
        self.work = os.environ.setdefault("KAFKA_WORK", os.path.join(tempfile.gettempdir(), "kafka-baseline"))
        if not os.path.isdir(os.path.join(self.work, "libs")):
            run([self.script, "fetch"])
        if not self.rk:
            self.rk = os.path.join(self.work, "rk")
            if not os.path.exists(self.rk):
                source = os.path.join(folder, "rk.c")
                run(["cc", "-O2", "-w", "-o", self.rk, source, "-lrdkafka"])
        if not self.delay_client:
            self.delay_client = os.path.join(self.work, "kafka-delay")
            source = os.path.join(os.path.dirname(os.path.realpath(__file__)), "kafka-delay.c")
            run(["cc", "-O2", "-o", self.delay_client, source, "-lrdkafka", "-lpthread"])
        # Formats the storage and makes the topic of the first acknowledgement.
        self.start()
        try:
            self.topic("create", "first", "1", "1")
        except SystemExit as error:
            if "exists" not in str(error):
                raise
        finally:
            self.stop()

    def start(self):
        run([self.script, "start"])
        settings = dict(
            line.partition("=")[::2] for line in run([self.script, "env"]).splitlines() if "=" in line
        )
        self.bootstrap = shlex.split(settings["KAFKA_BOOTSTRAP"])[0]
        self.pids = shlex.split(settings["KAFKA_PIDS"])[0].split()

    def stop(self):
        run([self.script, "stop"])

    def topic(self, *arguments):
        return run([self.script, "topic", *arguments])

    def client(self, mode, topic, count, warmup, settings):
        command = [self.rk, mode, self.bootstrap, topic, str(count), str(RECORD_BYTES), str(warmup)]
        said = run(command + [",".join(self.pids)] + settings)
        figures = dict(re.findall(r"(\w+)=([-\w.]+)", said))
        if int(figures.get("failed", 0)):
            raise SystemExit(f"{mode} {topic}: {said}")
        return figures | {"said": said.strip()}

    def delay(self, topic):
        wait_until_quiet()
        command = [self.delay_client, self.bootstrap, topic, str(COMMON_RATE), str(BATCH_RECORDS)]
        command += [str(RECORD_BYTES), str(DELAY_WARMUP_SECONDS), str(DELAY_SECONDS)]
        said = run(command + DELAY)
        figures = dict(re.findall(r"(\w+)=([-\w.]+)", said))
        return {
            "rate": COMMON_RATE * RECORD_BYTES, "p50_us": float(figures["p50_us"]),
            "p99_us": float(figures["p99_us"]), "client": figures["client"], "said": said.strip(),
        }

    def round(self, records, number):
        begun = time.time()
        self.start()
        try:
            acknowledged = int(self.client("firstack", "first", 1, 0, PING)["epoch_ms"]) / 1000
            figures = {"start": {"first_ack_s": acknowledged - begun}}
            wait_until_quiet()
            figures["memory"] = {"idle_mib": sum(map(rss_mib, self.pids))}
            for name, settings in TOPICS.items():
                topic = f"{name}-{number}-{os.getpid()}"
                self.topic("create", topic, "1", "1", *settings)
                wait_until_quiet()
                said = self.client("produce", topic, records, WARMUP_RECORDS, PRODUCE)
                figures[f"produce {name}"] = {
                    "rate": float(said["mb_s"]) * 1e6,
                    "cpu_s_per_gb": float(said["broker_cpu_s"]) / (records * RECORD_BYTES) * 1e9,
                    "client": said["client"], "said": said["said"],
                }
                if name == "page":
                    wait_until_quiet()
                    said = self.client("consume", topic, records, 0, CONSUME)
                    figures["consume"] = {
                        "rate": float(said["mb_s_excl"]) * 1e6,
                        "cpu_s_per_gb": float(said["broker_cpu_s"])
                        / (int(said["records"]) * RECORD_BYTES) * 1e9,
                        "client": said["client"], "said": said["said"],
                    }
                figures[f"delay {name}"] = self.delay(topic)
                wait_until_quiet()
                said = self.client("ping", topic, PINGS, 100, PING)
                figures[f"put {name}"] = {
                    "rate": float(said["rec_s"]), "p50_us": float(said["p50_us"]),
                    "p99_us": float(said["p99_us"]), "client": said["client"], "said": said["said"],
                }
                self.topic("delete", topic)
            figures["memory"]["loaded_mib"] = sum(map(rss_mib, self.pids))
            for name, values in figures.items():
                if "rate" in values:
                    say(f"  kafka {name}: {values['rate']:,.0f}")
            return figures
        finally:
            self.stop()


    def sync_calls(self):
        self.start()
        try:
            counted = {}
            for name, settings in TOPICS.items():
                topic = f"calls-{name}-{os.getpid()}"
                self.topic("create", topic, "1", "1", *settings)
                load = lambda: self.client("ping", topic, COMMITS, 0, PING)
                counted[name] = sync_calls(self.pids, load)
                self.topic("delete", topic)
            return counted
        finally:
            self.stop()


# Title, whose, which figures.
LINES = [
    ("produce, synced", "PrkDB", "ours", "produce"),
    ("produce, synced", "Kafka, flush.messages=1", "kafka", "produce sync"),
    ("produce, page cache", "Kafka", "kafka", "produce page"),
    ("consume", "PrkDB", "ours", "consume"),
    ("consume", "Kafka", "kafka", "consume"),
    ("end to end at half of that rate", "PrkDB", "ours", "end to end"),
    ("end to end at 125 MB/s", "PrkDB", "ours", "end to end, 125 MB/s"),
    ("end to end at 125 MB/s", "Kafka, flush.messages=1", "kafka", "delay sync"),
    ("end to end at 125 MB/s, page cache", "Kafka", "kafka", "delay page"),
    ("produce, synced, 16 KiB a batch, 1 partition", "PrkDB", "ours", "16k-1"),
    ("the same, 1,000 partitions", "PrkDB", "ours", "16k-1000"),
    ("one record at a time, synced", "PrkDB (put)", "ours", "put"),
    ("one record at a time, synced", "Kafka, flush.messages=1", "kafka", "put sync"),
    ("one record at a time, page cache", "Kafka", "kafka", "put page"),
]
PARTS = [
    ("start to first acknowledgement, s", "start", "first_ack_s", 2),
    ("memory, idle, MiB", "memory", "idle_mib", 0),
    ("memory, after the loads, MiB", "memory", "loaded_mib", 0),
]


def spread(values, scale=1.0, digits=0):
    values = [value * scale for value in values if value is not None]
    if not values:
        return ""
    middle = f"{statistics.median(values):,.{digits}f}"
    return f"{middle} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"


def table(rounds):
    print("| what | who | rate | server s/GB | p50 us | p99 us | limit | of the limit |")
    print("|---|---|---|---|---|---|---|---|")
    for title, who, side, name in LINES:
        seen = [each[side][name] for each in rounds if name in each.get(side, {})]
        if not seen:
            continue
        of = lambda field: [figures.get(field) for figures in seen]
        is_bytes = not name.startswith("put")
        rate = spread(of("rate"), 1e-6 if is_bytes else 1) + (" MB/s" if is_bytes else "/s")
        limit = ""
        if seen[-1].get("limit"):
            scale, unit = (1e-6, "MB/s") if seen[-1]["unit"] == "B/s" else (1, "/s")
            limit = f"{seen[-1]['limit']}: {spread(of('limit_rate'), scale)} {unit}"
        cells = [title, who, rate, spread(of("cpu_s_per_gb"), 1, 2), spread(of("p50_us"))]
        cells += [spread(of("p99_us")), limit, spread(of("ratio"), 1, 2)]
        print("| " + " | ".join(cells) + " |")
    print()
    sides = [side for side in ["ours", "kafka"] if side in rounds[0]]
    print("| | " + " | ".join({"ours": "PrkDB", "kafka": "Kafka"}[side] for side in sides) + " |")
    print("|---" * (len(sides) + 1) + "|")
    for title, part, field, digits in PARTS:
        cells = [spread([each[side][part][field] for each in rounds], 1, digits) for side in sides]
        print(f"| {title} | " + " | ".join(cells) + " |")


def write(path, document):
    if path:
        with open(path, "w") as file:
            json.dump(document, file, indent=1)
            file.write("\n")


def before(command):
    """What makes the machine the same for both, such as filling memory that was never touched."""
    if command:
        subprocess.run(command, shell=True, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bytes", type=int, default=3 << 30)
    parser.add_argument("--results")
    parser.add_argument("--kafka-dir")
    parser.add_argument("--rk")
    parser.add_argument("--delay", help="kafka-delay, built elsewhere")
    parser.add_argument("--sync-calls", action="store_true")
    parser.add_argument("--before", help="a command that is run before each server's turn")
    args = parser.parse_args()
    binary = os.path.realpath(args.binary)
    # Whole batches.
    records = -(-args.bytes // (RECORD_BYTES * BATCH_RECORDS)) * BATCH_RECORDS
    kafka = Kafka(os.path.realpath(args.kafka_dir), args.rk, args.delay) if args.kafka_dir else None
    document = {
        "schema": "prkdb.stream-figures/1", "machine": machine(), "version": run([binary, "--version"]).strip(),
        "settings": {
            "records": records, "record_bytes": RECORD_BYTES, "batch_records": BATCH_RECORDS,
            "durability": "sync", "kafka_topics": TOPICS, "kafka_produce": PRODUCE,
            "kafka_consume": CONSUME, "kafka_delay": DELAY, "kafka_ping": PING,
            "kafka_warmup_records": WARMUP_RECORDS,
        },
        "rounds": [],
    }
    for number in range(args.rounds):
        say(f"round {number + 1} of {args.rounds}")
        figures = {"load_before": os.getloadavg()}
        before(args.before)
        with tempfile.TemporaryDirectory(dir=".") as work:
            node = Ours(binary, work)
            try:
                figures["ours"] = node.round(records)
            finally:
                node.stop()
        if kafka:
            before(args.before)
            figures["kafka"] = kafka.round(records, number)
        document["rounds"].append(figures)
        write(args.results, document)
    table(document["rounds"])
    if args.sync_calls:
        with tempfile.TemporaryDirectory(dir=".") as work:
            node = Ours(binary, work)
            try:
                document["sync_calls"] = {"PrkDB": node.sync_calls()}
            finally:
                node.stop()
        if kafka:
            for name, counted in kafka.sync_calls().items():
                document["sync_calls"][f"Kafka, {name}"] = counted
        write(args.results, document)
        print(f"\nSystem calls that sync, for {COMMITS} records one after the other:\n")
        for who, counted in document["sync_calls"].items():
            print(f"- {who}: " + (", ".join(f"{count} {call}" for call, count in counted.items()) or "none"))


if __name__ == "__main__":
    main()
