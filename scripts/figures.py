#!/usr/bin/env python3
"""Measures put, get and batch-put, in rounds, each figure beside its limit of the same run.

usage: figures.py PRKDB-BINARY [--rounds 5] [--seconds 4]
                  [--peer NAME --peer-load 'COMMAND with {op}, {clients} and {seconds}']

A release build, on a machine that does nothing else. The peer's command runs a load of `put` or
`get` against a server that runs already, and prints `ops_s=`, `p50_us=` and `p99_us=`. Every round
measures every line once, so that slow minutes of the machine meet all of them. Printed are medians,
as a table in Markdown; the rounds go to stderr.
"""

import argparse, base64, json, os, re, shlex, signal, statistics, subprocess, sys, tempfile

parser = argparse.ArgumentParser()
parser.add_argument("binary")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--seconds", type=int, default=4)
parser.add_argument("--peer")
parser.add_argument("--peer-load")
args = parser.parse_args()
binary = os.path.realpath(args.binary)
lines = {}


def note(line, **figures):
    print(line, figures, file=sys.stderr, flush=True)
    for name, value in figures.items():
        lines.setdefault(line, {}).setdefault(name, []).append(value)


def run(command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    if done.returncode != 0:
        sys.exit(f"{command}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def bench(server, work, op, clients, unary):
    command = [binary, "--server", server, "-o", "json", "bench", op, "--clients", str(clients)]
    command += ["--duration", f"{args.seconds}s", "--with-limits", "--data-dir", work]
    report = json.loads(run(command + (["--unary"] if unary else [])))
    figure = report["figures"][0]
    way = "unary" if unary else "stream"
    latency = figure["latency_us"]
    limit = report["figures"][1]
    note(
        (op, clients, way), rate=figure["value"], p50=latency["p50"], p99=latency["p99"],
        ratio=figure["value"] / limit["value"], limit=limit["value"], what=limit["figure"],
    )


def peer(op, clients):
    command = args.peer_load.format(op=op, clients=clients, seconds=args.seconds)
    said = run(shlex.split(command))
    found = dict(re.findall(r"\b(ops_s|p50_us|p99_us)=(\d+)", said))
    note(
        (op, clients, args.peer), rate=float(found["ops_s"]), p50=int(found["p50_us"]),
        p99=int(found["p99_us"]),
    )


def load(server, work, path, size):
    """batch-put of a file, beside the limits of the machine."""
    report = json.loads(run([binary, "-o", "json", "bench", "limits", "--data-dir", work]))
    limits = {figure["figure"]: figure["value"] for figure in report["figures"]}
    echo = next(value for name, value in limits.items() if "1048576 bytes" in name) * (1 << 20)
    sync = next(value for name, value in limits.items() if "fdatasync" in name)
    before = os.times()
    run([binary, "--server", server, "batch-put", path])
    rate = size / (os.times().elapsed - before.elapsed)
    limit = min(echo, sync)
    note(
        ("batch-put", 1, "stream"), rate=rate, ratio=rate / limit, limit=limit,
        what="echo" if echo < sync else "grouped fdatasync",
    )


with tempfile.TemporaryDirectory(dir=".") as work:
    path = os.path.join(work, "records.txt")
    with open(path, "wb") as file:
        for number in range(1_000_000):
            file.write(b"key-%012d," % number + base64.b64encode(os.urandom(75)) + b"\n")
    size = 1_000_000 * (16 + 100)
    node = subprocess.Popen(
        [binary, "serve", "--listen", "127.0.0.1:0", "--http", "none", "--data-dir", f"{work}/d"],
        stdout=subprocess.PIPE, stderr=open(f"{work}/log", "w"), text=True,
    )
    try:
        server = re.search(r"grpc=(\S+)", node.stdout.readline()).group(1)
        for _ in range(args.rounds):
            for op in ["put", "get"]:
                for clients in [1, 64, 256]:
                    for unary in [False, True]:
                        bench(server, work, op, clients, unary)
                    if args.peer:
                        peer(op, clients)
            load(server, work, path, size)
    finally:
        node.send_signal(signal.SIGTERM)
        node.wait()

print("| what | under way | through | rate | p50 us | p99 us | limit | of the limit |")
print("|---|---|---|---|---|---|---|---|")
for (op, clients, way), figures in lines.items():
    of = lambda name: statistics.median(figures[name]) if name in figures else None
    rate = f"{of('rate') / 1e6:.0f} MB/s" if op == "batch-put" else f"{of('rate'):,.0f}/s"
    limit = ratio = ""
    if "ratio" in figures:
        unit = f"{of('limit') / 1e6:.0f} MB/s" if op == "batch-put" else f"{of('limit'):,.0f}/s"
        limit = f"{figures['what'][-1]}: {unit}"
        ratio = f"{of('ratio'):.2f} ({min(figures['ratio']):.2f}-{max(figures['ratio']):.2f})"
    cell = lambda name: "" if of(name) is None else f"{of(name):,.0f}"
    print(f"| {op} | {clients} | {way} | {rate} | {cell('p50')} | {cell('p99')} | {limit} | {ratio} |")
