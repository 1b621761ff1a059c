#!/usr/bin/env bash
# pandas 3.1.1, polars 2.1.0, pyarrow 26.0.1: a blanked cell goes into a feather or IPC file with its value.
#
# Expected: the column reads null there, so the number is gone. Found: Arrow keeps a null as a flag beside the
# values, and the value beneath stays: after `frame.loc[7, "n"] = pd.NA` in a column of pandas' `Int64`, after
# polars' `when(...).then(None)`, after pyarrow's `if_else` and after `pa.array` of a masked array, whatever the
# file's compression. Whoever reads the file with pyarrow has it in the column's buffer. `replace_with_mask`
# leaves no value, and a parquet file has none to keep.
#
# Seen: 1007 beneath the null of the file read back for all four; polars' text likewise; 0 by
# `replace_with_mask`.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q pandas==3.1.1 polars==2.1.0 pyarrow==26.0.1 numpy==2.4.6
"$there/v/bin/python" - "$there/rows" <<'PY'
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import feather, parquet

print("pandas", pd.__version__, "polars", pl.__version__, "pyarrow", pa.__version__)
path = Path(sys.argv[1])
numbers = np.arange(1000, 1100)
names = [f"the name of person {number}" for number in numbers]


def beneath():
    """What the file holds in the eighth cell of `n`, which reads null."""
    column = feather.read_table(path, memory_map=False)["n"].combine_chunks()
    assert column[7].as_py() is None and column.null_count == 1
    return int(np.frombuffer(column.buffers()[1], dtype=np.int64)[column.offset + 7])


seen = {}
frame = pd.DataFrame({"n": pd.array(numbers, dtype="Int64")})
frame.loc[7, "n"] = pd.NA
for compression in ("uncompressed", "lz4", "zstd"):
    frame.to_feather(path, compression=compression)
    seen[f"pandas, {compression}"] = beneath()

asked = pl.when(pl.col("n") == 1007)
table = pl.DataFrame({"n": numbers, "name": names}).with_columns(
    asked.then(None).otherwise(pl.col("n")).alias("n"),
    asked.then(None).otherwise(pl.col("name")).alias("name"),
)
assert table["name"][7] is None
table.write_ipc(path, compression="uncompressed")
seen["polars"] = beneath()
text = names[7].encode() in path.read_bytes()

plain = pa.array(numbers)
where = pc.equal(plain, 1007)
for name, made in {
    "if_else": pc.if_else(where, None, plain),
    "masked array": pa.array(np.ma.masked_equal(numbers, 1007)),
    "replace_with_mask": pc.replace_with_mask(plain, where, pa.array([None], pa.int64())),
}.items():
    feather.write_feather(pa.table({"n": made}), path)
    seen[name] = beneath()

for name, value in seen.items():
    print(f"{name}: {value} beneath the null")
print("polars' file holds the blanked name:", text)
assert seen.pop("replace_with_mask") != 1007
assert set(seen.values()) == {1007} and text
frame.to_parquet(path, compression=None)
assert parquet.read_table(path)["n"][7].as_py() is None
assert np.int64(1007).tobytes() not in path.read_bytes()
PY
