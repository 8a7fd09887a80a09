#!/usr/bin/env python3
"""Reads the log of a shard by docs/internals/log-format.md alone: the segments, every checksum, the
chain of entries; and its sidecars by docs/internals/sidecar.md. Uses nothing of PrkDB and nothing but
Python's standard library.

usage: prkdb_log.py SHARD-DIRECTORY      prints every entry, and compares each sidecar with the log
       prkdb_log.py FILE.hex             the same of a file like tests/golden/log/every_kind.hex

For a node that is stopped. What a crash left behind the last whole entry of the newest segment is told
and passed over; anything else that does not verify is an error.
"""

import os
import re
import struct
import sys

PAGE = 4096
HEADER = 72
KINDS = {1: "blank", 2: "normal", 3: "membership", 4: "vote", 5: "truncate", 6: "purge", 7: "sync"}
NAME = re.compile(r"^([0-9a-f]{16})-([0-9]{10})\.log$")


class Damage(Exception):
    """Bytes that are not what the format says."""


def _table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _table()


def crc32c(data, crc=0):
    """CRC32C, carried on from `crc`."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


class Frame:
    """A batch and where it belongs."""

    def __init__(self, header, batch, position):
        self.partition, self.record_count, self.base_offset, self.batch_len, zero = header
        self.batch, self.position = batch, position
        if zero:
            raise Damage("a reserved field of a frame header is not zero")

    def __str__(self):
        return f"partition {self.partition} from {self.base_offset}: {self.record_count} in {self.batch_len} bytes"


class Entry:
    """One entry, verified."""

    def __init__(self, fields, position, size):
        (self.kind, self.flags, self.body_len, self.frame_count, self.lsn, self.term, self.index,
         self.synced_lsn, self.committed, self.prev_crc, self.body_crc) = fields
        self.position = position
        self.size = size
        self.segment = None
        self.header_crc = None
        self.body = b""
        self.frames = []
        self.append_time_ms = None
        self.is_void = bool(self.flags & 1)

    def kept(self):
        """For a truncation: the last index that is kept; -1 = nothing."""
        present, index = self.body[0], struct.unpack_from("<Q", self.body, 16)[0]
        return index if present else -1

    def __str__(self):
        text = f"{self.position:9} lsn {self.lsn} {KINDS[self.kind]} term {self.term} index {self.index}"
        return "; ".join([text + (", void" if self.is_void else "")] + [str(f) for f in self.frames])


class Segment:
    """A file of the log with its page; `is_whole` says whether the page verifies."""

    def __init__(self, name, data):
        found = NAME.match(name)
        self.name, self.data = name, data
        self.log_id, self.number = int(found[1], 16), int(found[2])
        self.seed = crc32c(struct.pack("<QQ", self.log_id, self.number))
        page = data[:PAGE]
        self.is_whole = False
        if len(page) < PAGE or page[:4] != b"PrkS":
            return
        if crc32c(page[:508] + page[512:], self.seed) != struct.unpack_from("<I", page, 508)[0]:
            return
        if page[4] != 1:
            raise Damage(f"{name}: format {page[4]}")
        self.is_whole = True
        self.prev_crc = struct.unpack_from("<I", page, 12)[0]
        log_id, number, self.predecessor, self.cut_lsn, self.cut_position, self.first_lsn = (
            struct.unpack_from("<6Q", page, 32)
        )
        if (log_id, number) != (self.log_id, self.number):
            raise Damage(f"{name}: the page is that of segment {number} of log {log_id:016x}")

    def entry(self, position, prev_crc):
        """The entry at a position; None where the segment ends."""
        header = self.data[position : position + HEADER]
        if len(header) < HEADER or header == bytes(HEADER):
            return None
        where = f"{self.name} at {position}"
        if header[:4] != b"PrkE":
            raise Damage(f"{where}: no entry")
        if crc32c(header[:68], self.seed) != struct.unpack_from("<I", header, 68)[0]:
            raise Damage(f"{where}: the header does not match its checksum")
        form, *fields, zero, header_crc = struct.unpack("<4xBBHIIQQQQQIIII", header)
        if form != 1 or zero or fields[0] not in KINDS:
            raise Damage(f"{where}: format {form}, kind {fields[0]}, reserved {zero}")
        size = HEADER + (fields[2] + 7) // 8 * 8
        entry = Entry(fields, position, size)
        entry.header_crc = header_crc
        if entry.prev_crc != prev_crc:
            raise Damage(f"{where}: the chain is broken")
        rest = self.data[position + HEADER : position + size]
        if len(rest) < size - HEADER or any(rest[entry.body_len :]):
            raise Damage(f"{where}: the body is cut, or its padding is not zero")
        entry.body = rest[: entry.body_len]
        covered = self._frames(entry, where) if entry.kind == 2 else entry.body
        if crc32c(covered + rest[entry.body_len :], self.seed) != entry.body_crc:
            raise Damage(f"{where}: the body does not match its checksum")
        return entry

    @staticmethod
    def _frames(entry, where):
        """Cuts the body into frames; returns what its checksum covers."""
        head = 24 + 24 * entry.frame_count
        covered = bytearray(entry.body[:head])
        entry.append_time_ms = struct.unpack_from("<q", entry.body, 16)[0]
        position = head
        for number in range(entry.frame_count):
            header = struct.unpack_from("<IIQII", entry.body, 24 + 24 * number)
            batch = entry.body[position : position + header[3]]
            if len(batch) < header[3]:
                raise Damage(f"{where}: frame {number} is cut")
            entry.frames.append(Frame(header, batch, entry.position + HEADER + position))
            covered += batch[:21]
            position += header[3]
        if position != entry.body_len:
            raise Damage(f"{where}: the frames do not fill the body")
        return bytes(covered)


class Log:
    """The log of one shard: its segments from the first to the newest, and their entries."""

    def __init__(self, files):
        segments = [Segment(name, data) for name, data in sorted(files.items()) if NAME.match(name)]
        if len({segment.log_id for segment in segments}) > 1:
            raise Damage("two logs in one directory")
        self.ended = None
        self.segments = []
        whole = {segment.number: segment for segment in segments if segment.is_whole}
        number = max(whole, default=0)
        while number:
            if number not in whole:
                raise Damage(f"segment {number} is missing or has no whole page")
            self.segments.insert(0, whole[number])
            number = whole[number].predecessor

    @classmethod
    def open(cls, directory):
        files = {}
        for name in os.listdir(directory):
            if NAME.match(name):
                with open(os.path.join(directory, name), "rb") as file:
                    files[name] = file.read()
        return cls(files)

    def all_entries(self):
        """(segment, entry) of every entry, in order."""
        prev_crc, lsn = 0, 0
        for segment, successor in zip(self.segments, self.segments[1:] + [None]):
            cut = successor.cut_position if successor and successor.cut_lsn else None
            if segment.prev_crc != prev_crc:
                raise Damage(f"{segment.name}: its page does not continue the chain")
            position = PAGE
            while cut is None or position < cut:
                try:
                    entry = segment.entry(position, prev_crc)
                except Damage as damage:
                    if successor:
                        raise
                    self.ended = str(damage)
                    return
                if entry is None:
                    break
                if entry.lsn <= lsn:
                    raise Damage(f"{segment.name} at {position}: lsn {entry.lsn} after {lsn}")
                entry.segment = segment
                yield segment, entry
                position += entry.size
                prev_crc, lsn = entry.header_crc, entry.lsn

    def entries(self):
        """The replicated entries that count: neither cut off by a truncation nor void."""
        kept = []
        for _, entry in self.all_entries():
            if entry.kind == 5:
                while kept and kept[-1].index > entry.kept():
                    kept.pop()
            elif entry.kind in (1, 2, 3):
                kept.append(entry)
        return [entry for entry in kept if not entry.is_void]

    def frames(self):
        """Every frame that counts, in order."""
        return [frame for entry in self.entries() for frame in entry.frames]


def numbers(data):
    """Numbers in LEB128."""
    number, shift = 0, 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number, shift = 0, 0


def track(points, steps, frames):
    """The frames that points and steps say: (offset, position, bytes, offsets)."""
    found, largest = [], []
    runs = [struct.unpack_from("<QqII", points, at) for at in range(0, len(points), 24)]
    for run, following in zip(runs, runs[1:] + [None]):
        offset, before, end, at = run
        rest = numbers(steps[at : following[3] if following else len(steps)])
        largest.append((len(found), before))
        for gap, size, count in zip(rest, rest, rest):
            found.append((offset, end + gap, size, count))
            offset, end = offset + count, end + gap + size
    if len(found) != frames:
        raise Damage(f"{len(found)} frames where the row says {frames}")
    return found, largest


def sidecar(data, segment):
    """What a sidecar says of each partition of its segment."""
    log_id, number, rows, zero, length, body_crc, header_crc = struct.unpack_from("<QQIIQII", data, 8)
    if data[:8] != b"PrkX\x01\0\0\0" or zero or length != len(data):
        raise Damage("the header of the sidecar is wrong")
    if (log_id, number) != (segment.log_id, segment.number):
        raise Damage("the sidecar is that of another segment")
    if crc32c(data[:44], segment.seed) != header_crc or crc32c(data[48:], segment.seed) != body_crc:
        raise Damage("the sidecar does not match its checksums")
    said = {}
    for row in range(rows):
        partition, frames, first, behind, latest, *places = struct.unpack_from(
            "<IIQQqIIII", data, 48 + 48 * row
        )
        points = data[places[0] : places[0] + places[1]]
        steps = data[places[2] : places[2] + places[3]]
        said[partition] = (first, behind, latest, *track(points, steps, frames))
    return said


def check_sidecars(log, directory):
    """Compares the sidecars of a directory with what its log says; returns how many there are."""
    partitions = {segment.number: {} for segment in log.segments}
    for entry in log.entries():
        for frame in entry.frames:
            partitions[entry.segment.number].setdefault(frame.partition, []).append(frame)
    checked = 0
    for segment in log.segments:
        path = os.path.join(directory, segment.name.replace(".log", ".index"))
        if not os.path.exists(path):
            continue
        with open(path, "rb") as file:
            said = sidecar(file.read(), segment)
        if set(said) != set(partitions[segment.number]):
            raise Damage(f"{path}: other partitions than the segment has")
        for partition, frames in partitions[segment.number].items():
            first, behind, latest, found, points = said[partition]
            expected = [(f.base_offset, f.position, f.batch_len, f.record_count) for f in frames]
            # The field of the batch's header that is its largest timestamp.
            times = [struct.unpack_from(">q", f.batch, 35)[0] for f in frames]
            before = [max(times[:at], default=-(1 << 63)) for at, _ in points]
            last = frames[-1].base_offset + frames[-1].record_count
            if found != expected or [time for _, time in points] != before:
                raise Damage(f"{path}: partition {partition}: other frames than the segment has")
            if (first, behind, latest) != (frames[0].base_offset, last, max(times)):
                raise Damage(f"{path}: partition {partition}: the row is wrong")
        checked += 1
    return checked


def files_of_hex(path):
    """The files that a golden file holds: rows of 16 bytes, rows of zeros left out."""
    files = {}
    with open(path) as file:
        for line in file.readlines()[1:]:
            words = line.split()
            if words[0] == "file":
                files[words[1]] = data = bytearray(int(words[2]))
            else:
                at = int(words[0], 16)
                data[at : at + len(words) - 1] = bytes.fromhex("".join(words[1:]))
    return {name: bytes(data) for name, data in files.items()}


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    path = sys.argv[1]
    log = Log.open(path) if os.path.isdir(path) else Log(files_of_hex(path))
    before = None
    for segment, entry in log.all_entries():
        if segment is not before:
            print(segment.name)
        before = segment
        print(entry)
    if log.ended:
        print(f"ends before: {log.ended}")
    if os.path.isdir(path):
        print(f"{check_sidecars(log, path)} sidecars say what the log says")
    return 0


if __name__ == "__main__":
    sys.exit(main())
