#!/usr/bin/env python3
"""Compares what `prkdb scan -o ndjson` prints with the rows of a CSV file, as multisets.

usage: flights-check.py FILE.csv KEY,COLUMNS < scan.ndjson

Uses nothing of PrkDB: Python's own csv and json. The key must be the columns joined by `|`, the value
the row as a JSON object of strings.
"""

import collections
import csv
import json
import sys


def main() -> int:
    path, columns = sys.argv[1], sys.argv[2].split(",")
    with open(path, newline="") as file:
        expected = collections.Counter(
            ("|".join(row[c] for c in columns), tuple(row.items())) for row in csv.DictReader(file)
        )
    found = collections.Counter()
    distance = 0
    for line in sys.stdin:
        record = json.loads(line)
        row = json.loads(record["value"])
        distance += int(row["distance"])
        found[(record["key"], tuple(row.items()))] += 1
    missing = sum((expected - found).values())
    extra = sum((found - expected).values())
    rows = sum(found.values())
    print(f"rows {rows}, missing {missing}, extra {extra}, distance {distance}")
    return 0 if rows and missing == 0 and extra == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
