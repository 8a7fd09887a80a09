#!/usr/bin/env python3
"""Reads PrkDB's batches with Kafka's record format as another project reads it (kafka-python), and
compares every record with what was produced.

usage: batches-check.py make FILE --set NAME [--records N]   writes records for `prkdb produce`
       batches-check.py log DATA-DIR FILE...                 compares the log of a stopped node
       batches-check.py fetch ADDRESS FILE...                compares what Stream.Fetch sends
       batches-check.py send ADDRESS FILE...                 produces batches that kafka-python encodes

FILE is NAME.jsonl, where NAME is the set, the collection (of one partition), and says at its end which
codec the batches have, such as `prkdb-zstd`; every record names its set in its first header. `log` finds
the batches by docs/internals/log-format.md (prkdb_log.py), and has the sidecars compared with the log.
`fetch` and `send` speak gRPC with what grpcio makes of proto/ at run time. Run it through
batches-check.sh, which installs what it needs.
"""

import argparse
import base64
import collections
import datetime
import json
import os
import queue
import random
import sys

import prkdb_log

PROTO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "proto")
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
# Of the batches that `send` encodes.
SENT_RECORDS = 500
# One call of `fetch`, small, so that it takes many.
FETCH_BYTES = 64 << 10

Record = collections.namedtuple("Record", "key value timestamp headers")


def make(path, name, count):
    """Writes records of many kinds, the same ones for the same name."""
    draw = random.Random(name)
    words = ["flight", "aircraft", "Zürich", "東京", "delay", "", '"quoted"', "tab\there", "line\nbreak"]
    with open(path, "w") as file:
        for number in range(count):
            moment = 1_357_034_400_000 + number * 1000 + draw.randrange(-5_000, 5_000)
            time = datetime.datetime.fromtimestamp(moment // 1000, datetime.timezone.utc)
            line = {"timestamp": f"{time:%Y-%m-%dT%H:%M:%S}.{moment % 1000:03}Z"}
            key = draw.choice(["text", "bytes", "none"])
            if key == "text":
                line["key"] = f"{draw.choice(words)}-{draw.randrange(50)}"
            elif key == "bytes":
                line["key_b64"] = base64.b64encode(draw.randbytes(draw.randrange(1, 40))).decode()
            value = draw.choice(["text", "text", "bytes", "empty", "long"])
            if value == "text":
                line["value"] = " ".join(draw.choices(words, k=draw.randrange(1, 20)))
            elif value == "bytes":
                line["value_b64"] = base64.b64encode(draw.randbytes(draw.randrange(200))).decode()
            elif value == "long":
                line["value"] = draw.choice(words[:5]) * draw.randrange(1, 400)
            else:
                line["value"] = ""
            line["headers"] = [["set", name]] + [
                [draw.choice(["trace", "trace", "größe"]), draw.choice(words)]
                for _ in range(draw.choice([0, 0, 1, 3]))
            ]
            file.write(json.dumps(line, ensure_ascii=draw.random() < 0.5) + "\n")


def produced(path):
    """The records of a file, as they must come back."""
    records = []
    with open(path) as file:
        for text in file:
            line = json.loads(text)

            def field(name):
                if f"{name}_b64" in line:
                    return base64.b64decode(line[f"{name}_b64"])
                return line[name].encode() if name in line else None

            moment = datetime.datetime.fromisoformat(line["timestamp"].replace("Z", "+00:00"))
            since = moment - datetime.datetime.fromtimestamp(0, datetime.timezone.utc)
            headers = [(key, value.encode()) for key, value in line["headers"]]
            records.append(
                Record(field("key"), field("value"), since // datetime.timedelta(milliseconds=1), headers)
            )
    return records


def set_of(path):
    return os.path.splitext(os.path.basename(path))[0]


class Found:
    """The records of one partition, as the library reads them."""

    def __init__(self):
        self.records = {}
        self.batches = collections.Counter()
        self.bytes = 0
        self.last_offset = -1

    def add(self, data, frame=None):
        """Adds batches that stand end to end."""
        from kafka.record.memory_records import MemoryRecords

        memory = MemoryRecords(data)
        while memory.has_next():
            batch = memory.next_batch()
            if batch.magic != 2 or not batch.validate_crc():
                raise SystemExit(f"batch at offset {batch.base_offset}: magic or checksum is wrong")
            if frame and (batch.base_offset, batch.records_count) != (frame.base_offset, frame.record_count):
                raise SystemExit(f"the frame at {frame.base_offset} has another batch")
            if batch.base_offset <= self.last_offset:
                raise SystemExit(f"batch at offset {batch.base_offset} after {self.last_offset}")
            self.last_offset = batch.last_offset
            self.batches[CODECS[batch.compression_type]] += 1
            self.bytes += batch.size_in_bytes
            for record in batch:
                self.records[record.offset] = Record(
                    record.key, record.value, record.timestamp, list(record.headers)
                )
        if memory.valid_bytes() != len(data):
            raise SystemExit("a batch is cut")

    def set_name(self):
        for record in self.records.values():
            if record.headers and record.headers[0][0] == "set":
                return record.headers[0][1].decode()
        return None


def compare(where, name, expected, found, codec):
    """Prints what was seen; returns whether it is what was produced."""
    wrong = 0
    for offset, record in enumerate(expected):
        if found.records.get(offset) != record:
            wrong += 1
            if wrong == 1:
                print(f"{where} {name}: offset {offset}")
                print(f"  produced {str(record):.300}\n  found    {str(found.records.get(offset)):.300}")
    extra = len(set(found.records) - set(range(len(expected))))
    other = [used for used in found.batches if codec and used != codec]
    used = ", ".join(f"{count} {name}" for name, count in sorted(found.batches.items()))
    print(
        f"{where} {name}: {len(found.records)} records in {used or 'no'} batches, {found.bytes} bytes; "
        f"{wrong} wrong, {extra} extra" + (f"; not {codec}: {', '.join(other)}" if other else "")
    )
    return bool(expected) and not wrong and not extra and not other


def of_log(directory):
    """Every partition's records, from the segments on disk, by their sets."""
    sets = {}
    for shard in sorted(name for name in os.listdir(directory) if name.startswith("shard-")):
        log = prkdb_log.Log.open(os.path.join(directory, shard))
        partitions = collections.defaultdict(Found)
        for frame in log.frames():
            # Partition 0 of a shard holds its commands.
            if frame.partition:
                partitions[frame.partition].add(frame.batch, frame)
        if log.ended:
            raise SystemExit(f"{shard} was not stopped in order: {log.ended}")
        sidecars = prkdb_log.check_sidecars(log, os.path.join(directory, shard))
        print(f"{shard}: {len(log.segments)} segments, {sidecars} sidecars that say what the log says")
        for found in partitions.values():
            name = found.set_name()
            if name in sets and name is not None:
                raise SystemExit(f"two partitions hold the set {name}")
            sets[name] = found
    return sets


class Client:
    """gRPC without a line of ours: messages and stubs come from proto/ when it starts."""

    def __init__(self, address):
        import grpc

        sys.path.insert(0, PROTO)
        self.messages, services = grpc.protos_and_services("prkdb/v1/stream.proto")
        channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])
        self.stream = services.StreamStub(channel)

    def fetch(self, collection, start=0):
        """The records of partition 0 from an offset on."""
        found, position = Found(), start
        while True:
            begin = self.messages.FetchRequest.Start(
                **{"partition": 0, "from": self.messages.Position(offset=position)}
            )
            request = self.messages.FetchRequest(
                collection=collection, starts=[begin], max_wait_ms=100, max_bytes=FETCH_BYTES
            )
            before = position
            for reply in self.stream.Fetch(request, timeout=30):
                found.add(b"".join(reply.batches))
                if reply.batches:
                    position = reply.next_offset
                watermark = reply.high_watermark
            if position >= watermark:
                return found
            if position == before:
                raise SystemExit(f"{collection}: nothing at {position}, watermark {watermark}")

    def list_offsets(self, collection, **place):
        item = self.messages.ListOffsetsRequest.Item(partition=0, position=self.messages.Position(**place))
        request = self.messages.ListOffsetsRequest(collection=collection, items=[item])
        return self.stream.ListOffsets(request, timeout=30).items[0].offset

    def send(self, collection, records, codec):
        """Produces records in batches of another encoder; every batch twice, as a retry would."""
        batches = list(encode(records, codec))
        requests = [self.messages.ProduceRequest(open={"collection": collection})]
        for number, batch in enumerate(batches):
            for again in range(2):
                message = {"id": 2 * number + again, "partition": 0, "batch": batch}
                requests.append(self.messages.ProduceRequest(batch=message))
        # One after the other: the credit is not counted here.
        rest, waiting = iter(requests), queue.SimpleQueue()
        waiting.put(next(rest))
        replies = self.stream.Produce(iter(waiting.get, None), timeout=60)
        acks = {}
        for reply in replies:
            kind = reply.WhichOneof("message")
            if kind == "failed":
                raise SystemExit(f"{collection}: {reply.failed.detail}")
            if kind == "ack":
                acks[reply.ack.id] = reply.ack
            if kind in ("ack", "opened"):
                waiting.put(next(rest, None))
        expected = 0
        for number in range(len(batches)):
            first, again = acks[2 * number], acks[2 * number + 1]
            if (first.base_offset, first.duplicate) != (expected, False):
                raise SystemExit(f"{collection}: batch {number} at {first.base_offset}, not {expected}")
            if (again.base_offset, again.duplicate) != (expected, True):
                raise SystemExit(f"{collection}: the repeat of batch {number} is not known as one")
            expected += min(SENT_RECORDS, len(records) - expected)
        print(f"sent {collection}: {len(batches)} batches of {codec}, each twice, each there once")


def encode(records, codec):
    """Batches as kafka-python makes them, under one producer."""
    from kafka.record.memory_records import MemoryRecordsBuilder

    producer = random.SystemRandom().getrandbits(63)
    for start in range(0, len(records), SENT_RECORDS):
        builder = MemoryRecordsBuilder(
            2, CODECS.index(codec), 1 << 30, 0, False, producer, 0, start
        )
        for record in records[start : start + SENT_RECORDS]:
            builder.append(record.timestamp, record.key, record.value, record.headers)
        builder.close()
        yield bytes(builder.buffer())


def check_offsets(client, name, expected):
    """The first offset of a time is the first record with that time or a later one."""
    count = len(expected)
    asked = [(dict(earliest=True), 0), (dict(latest=True), count)]
    for number in range(0, count, max(1, count // 20)):
        time = expected[number].timestamp + 1
        first = next((at for at, record in enumerate(expected) if record.timestamp >= time), count)
        asked.append((dict(timestamp_ms=time), first))
    wrong = [(place, offset) for place, offset in asked if client.list_offsets(name, **place) != offset]
    print(f"offsets {name}: {len(asked)} asked, {len(wrong)} wrong" + (f", such as {wrong[0]}" if wrong else ""))
    return not wrong


def check_middle(client, name, expected):
    """A fetch from the middle begins with the batch that holds the offset."""
    middle = len(expected) // 2
    found = client.fetch(name, middle)
    rest = {offset: record for offset, record in found.records.items() if offset >= middle}
    good = rest == dict(list(enumerate(expected))[middle:]) and min(found.records) <= middle
    print(f"fetch {name} from {middle}: {len(rest)} records, {'as produced' if good else 'wrong'}")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("command", choices=["make", "log", "fetch", "send"])
    parser.add_argument("target")
    parser.add_argument("files", nargs="*")
    parser.add_argument("--set")
    parser.add_argument("--records", type=int, default=3000)
    parser.add_argument("--codec", choices=CODECS)
    args = parser.parse_args()
    if args.command == "make":
        make(args.target, args.set, args.records)
        return 0
    good = True
    found = of_log(args.target) if args.command == "log" else None
    client = Client(args.target) if args.command != "log" else None
    for path in args.files:
        name, expected = set_of(path), produced(path)
        codec = args.codec or name.rpartition("-")[2]
        if codec not in CODECS:
            parser.error(f"{path}: no codec at the end of the name, and no --codec")
        if args.command == "log":
            good &= compare("log", name, expected, found.get(name, Found()), codec)
        elif args.command == "fetch":
            good &= compare("fetch", name, expected, client.fetch(name), codec)
            good &= check_middle(client, name, expected) and check_offsets(client, name, expected)
        else:
            client.send(name, expected, codec)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
