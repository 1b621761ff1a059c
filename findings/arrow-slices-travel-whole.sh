#!/usr/bin/env bash
# pyarrow 26.0.1, datasets 4.8.5: a pickled part holds the rows that were left out of it.
#
# A slice of an Arrow table and a `datasets.Dataset` after `select` or `filter` look at the whole table.
# Pickled (as multiprocessing, Ray and a cache do), the whole table goes along: what was taken out of a
# client's data is sent to every worker. Arrow's own IPC and `save_to_disk` write the chosen rows only.
#
# Seen: the last of 1,000 rows is in the pickle of the first three for all four; not in IPC nor on disk.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q datasets==4.8.5 pyarrow==26.0.1
HF_DATASETS_OFFLINE=1 HF_HOME="$there/home" "$there/v/bin/python" - "$there/saved" <<'PY'
import pickle
import sys
from pathlib import Path

import datasets
import pyarrow as pa

datasets.disable_progress_bars()
print("pyarrow", pa.__version__, "datasets", datasets.__version__)
names = [f"person-{place:06d}" for place in range(1000)]
gone = b"person-000999"
table = pa.table({"who": names})
rows = datasets.Dataset.from_dict({"who": names})
parts = {
    "array slice": table["who"].chunk(0).slice(0, 3),
    "table slice": table.slice(0, 3),
    "select": rows.select([0, 2, 5]),
    "filter": rows.filter(lambda row: row["who"] < "person-000003"),
}
for name, part in parts.items():
    sent = pickle.dumps(part)
    print(f"{name}: {len(part)} rows, {len(sent)} bytes, holds the last row: {gone in sent}")
    assert gone in sent
sink = pa.BufferOutputStream()
with pa.ipc.new_stream(sink, table.schema) as stream:
    stream.write_table(table.slice(0, 3))
print("IPC stream holds the last row:", gone in sink.getvalue().to_pybytes())
assert gone not in sink.getvalue().to_pybytes()
parts["select"].save_to_disk(sys.argv[1])
on_disk = any(gone in f.read_bytes() for f in Path(sys.argv[1]).rglob("*") if f.is_file())
print("save_to_disk holds the last row:", on_disk)
assert not on_disk
PY
