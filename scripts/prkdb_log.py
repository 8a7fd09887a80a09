#!/usr/bin/env python3
"""Reads the log of a shard by docs/internals/log-format.md alone: the segments, every checksum, the
chain of entries. Uses nothing of PrkDB and nothing but Python's standard library.

usage: prkdb_log.py SHARD-DIRECTORY      prints every entry
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

    def __init__(self, header, batch):
        self.partition, self.record_count, self.base_offset, self.batch_len, zero = header
        self.batch = batch
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
            entry.frames.append(Frame(header, batch))
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
