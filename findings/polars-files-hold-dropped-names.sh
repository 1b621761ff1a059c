#!/usr/bin/env bash
# polars 2.1.0: the names of rows that were filtered out are in the IPC file written next, and in every later one.
#
# Expected: `frame.filter(...)` makes a frame of the rows that stay, and `write_ipc` writes that. Found: texts
# of more than 12 letters lie in a buffer that the filtered frame shares, and unless enough of it went unused
# the buffer is written whole: file, stream, pickle and `serialize`. Filter, anti-join, sort, `unique`,
# `rechunk` and `shrink_to_fit` alike; also straight from a csv file with `sink_ipc`. Reading such a file and
# writing it again keeps the name. Nothing shows it: no reader returns the row. A parquet file holds the rows
# that stay alone; with more than half of the rows gone so does the IPC file, which is why a test of a few rows
# looks clean.
#
# Seen: one of 1,000 rows dropped: its name is in the file by each way, and in the file's copy; not in parquet,
# and not in the IPC file once 600 rows are dropped.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q polars==2.1.0
"$there/v/bin/python" - "$there" <<'PY'
import io
import pickle
import sys
from pathlib import Path

import polars as pl

print("polars", pl.__version__)
there = Path(sys.argv[1])
rows = pl.DataFrame({"id": range(1000), "name": [f"the name of person {n:04d}" for n in range(1000)]})
name = rows["name"][7].encode()
stay = pl.col("id") != 7


def written(frame, kind="ipc"):
    to = io.BytesIO()
    getattr(frame, f"write_{kind}")(to, compression="uncompressed")
    return to.getvalue()


left = rows.filter(stay)
assert left.height == 999 and 7 not in left["id"]
rows.write_csv(there / "rows.csv")
pl.scan_csv(there / "rows.csv").filter(stay).sink_ipc(there / "rows.arrow")
seen = {
    "filter": written(left),
    "stream": written(left, "ipc_stream"),
    "pickle": pickle.dumps(left),
    "serialize": left.serialize(),
    "anti-join": written(rows.join(pl.DataFrame({"id": [7]}), on="id", how="anti")),
    "sort": written(left.sort("name", descending=True)),
    "unique": written(left.unique()),
    "rechunk": written(left.rechunk()),
    "shrink_to_fit": written(left.shrink_to_fit()),
    "from csv to file": (there / "rows.arrow").read_bytes(),
    "read and written again": written(pl.read_ipc(io.BytesIO(written(left)))),
    "parquet": written(left, "parquet"),
    "600 rows dropped": written(rows.filter(pl.col("id") >= 600)),
}
for way, data in seen.items():
    print(f"{way}: the dropped name is {'' if name in data else 'not '}there")
clean = {way for way, data in seen.items() if name not in data}
assert clean == {"parquet", "600 rows dropped"}
PY
