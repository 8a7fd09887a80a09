#!/usr/bin/env python3
"""Compares what `prkdb consume -o ndjson` prints with the rows of a CSV file that was produced.

usage: stream-check.py FILE.csv [CONSUMED.ndjson] [--key tailnum] [--timestamp time_hour]
                       [--sum distance] [--partitions N] [--from TIME]

Uses nothing of PrkDB: Python's csv and json, and a murmur2 of its own. Each value must be a row as a
JSON object of strings in the order of the columns, its key and its timestamp those of the row. Checked
are the rows as multisets, the order of each key (that of the file), and that the offsets of each
partition rise. With --partitions the partition of each key must be the one that Kafka's default
partitioner chooses. With --from too, the rows expected are those of each partition from the first that
reaches the time on, and all after it. Exit code 1 where anything differs.
"""

import argparse
import base64
import collections
import csv
import datetime
import functools
import json
import sys


def arguments():
    parser = argparse.ArgumentParser(description="compare consumed records with the rows of a file")
    parser.add_argument("file")
    parser.add_argument("consumed", nargs="?", default="-")
    parser.add_argument("--key", default="tailnum")
    parser.add_argument("--timestamp", default="time_hour")
    parser.add_argument("--sum", default="distance")
    parser.add_argument("--partitions", type=int)
    parser.add_argument("--from", dest="since")
    args = parser.parse_args()
    if args.since and not args.partitions:
        parser.error("--from needs --partitions")
    return args


@functools.lru_cache(maxsize=1 << 16)
def milliseconds(text):
    """Of a time in RFC 3339."""
    moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    if moment.tzinfo is None:
        raise ValueError(f"no zone in {text}")
    return (moment - datetime.datetime.fromtimestamp(0, datetime.timezone.utc)) // (
        datetime.timedelta(milliseconds=1)
    )


def kafka_partition(key, partitions):
    """Of Kafka's default partitioner: murmur2 of the key, made positive, modulo the partitions."""
    mask = 0xFFFFFFFF
    m = 0x5BD1E995
    h = 0x9747B28C ^ len(key)
    whole = len(key) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if len(key) > whole:
        h = (h ^ int.from_bytes(key[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return ((h ^ h >> 15) & 0x7FFFFFFF) % partitions


def field(record, name):
    """A key or value as bytes; None where there is none."""
    if record.get(name) is not None:
        return record[name].encode()
    if record.get(f"{name}_b64") is not None:
        return base64.b64decode(record[f"{name}_b64"], validate=True)
    return None


class Rows:
    """The rows of the file, and how each must come."""

    def __init__(self, args):
        self.args = args
        self.partition_of = {}
        self.lines = collections.defaultdict(list)
        reached = set()
        with open(args.file, newline="") as file:
            for line, row in enumerate(csv.DictReader(file)):
                if args.since:
                    partition = self.partition(row[args.key].encode())
                    if partition not in reached:
                        if milliseconds(row[args.timestamp]) < milliseconds(args.since):
                            continue
                        reached.add(partition)
                self.lines[tuple(row.items())].append(line)
        self.expected = collections.Counter({row: len(at) for row, at in self.lines.items()})

    def partition(self, key):
        if key not in self.partition_of:
            self.partition_of[key] = kafka_partition(key, self.args.partitions)
        return self.partition_of[key]


def main():
    args = arguments()
    rows = Rows(args)
    found = collections.Counter()
    wrong = collections.Counter()
    examples = {}
    last_offset = {}
    last_line = {}
    partition_of_key = {}
    total = 0

    def note(kind, text):
        wrong[kind] += 1
        examples.setdefault(kind, text)

    source = sys.stdin if args.consumed == "-" else open(args.consumed)
    for number, text in enumerate(source, 1):
        record = json.loads(text)
        partition, offset = record["partition"], record["offset"]
        at = f"line {number}, partition {partition}, offset {offset}"
        if offset <= last_offset.get(partition, -1):
            note("offset", f"{at}: after {last_offset[partition]}")
        last_offset[partition] = offset
        key = field(record, "key")
        row = json.loads(field(record, "value"))
        items = tuple(row.items())
        found[items] += 1
        total += int(row[args.sum])
        if key != row[args.key].encode():
            note("key", f"{at}: {key!r} is not {row[args.key]!r}")
        time = row[args.timestamp]
        if milliseconds(record["timestamp"]) != milliseconds(time):
            note("timestamp", f"{at}: {record['timestamp']} is not {time}")
        if partition_of_key.setdefault(key, partition) != partition:
            note("partition", f"{at}: {key!r} was in {partition_of_key[key]} before")
        if args.partitions and rows.partition(key) != partition:
            note("partition", f"{at}: {key!r} belongs to {rows.partition(key)}")
        lines = rows.lines.get(items, [])
        if found[items] <= len(lines):
            line = lines[found[items] - 1]
            if line < last_line.get(key, -1):
                note("order", f"{at}: row {line} of the file after row {last_line[key]}")
            last_line[key] = line

    missing = sum((rows.expected - found).values())
    extra = sum((found - rows.expected).values())
    count = sum(found.values())
    print(
        f"rows {count}, missing {missing}, extra {extra}, order errors {wrong['order']}, "
        f"{args.sum} {total}"
    )
    for partition in sorted(last_offset):
        print(f"partition {partition}: last offset {last_offset[partition]}", file=sys.stderr)
    for kind, text in examples.items():
        print(f"{wrong[kind]} of {kind}, the first: {text}", file=sys.stderr)
    return 0 if count and missing == 0 and extra == 0 and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
