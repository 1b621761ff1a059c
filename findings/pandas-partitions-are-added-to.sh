#!/usr/bin/env bash
# pandas 3.1.1 with pyarrow 26.0.1: a partitioned table written again is added to the one that lies there.
#
# Expected: `to_parquet(folder, partition_cols=[...])` replaces the table, as `to_parquet(file)` does. Found: every
# file gets a new name, so a table written anew without a client holds that client's rows and all others twice.
# polars 2.1.0 names its files alike each time: others once, but the client who left stays, since its partition is
# not written and so not touched; pyarrow's `delete_matching` does the same. DuckDB's OVERWRITE is what one means.
#
# Seen: 4 rows each of a, b and c, then written again without b: pandas a 8, b 4, c 8; polars and
# `delete_matching` a 4, b 4, c 4; DuckDB a 4, c 4.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q pandas==3.1.1 pyarrow==26.0.1 numpy==2.4.6 polars==2.1.0 duckdb==2.0.1
cd "$there" && "$there/v/bin/python" - <<'PY'
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds

print("pandas", pd.__version__, "pyarrow", pa.__version__, "polars", pl.__version__)
rows = pd.DataFrame({"client": ["a", "b", "c"] * 4, "value": range(12)})
left = rows[rows.client != "b"]

for frame in (rows, left):
    frame.to_parquet("pandas", partition_cols=["client"])
    pl.from_pandas(frame).write_parquet("polars/", partition_by="client")
    ds.write_dataset(
        pa.Table.from_pandas(frame, preserve_index=False),
        "arrow",
        format="parquet",
        partitioning=ds.partitioning(pa.schema([("client", pa.string())]), flavor="hive"),
        existing_data_behavior="delete_matching",
    )
    duckdb.execute(
        "copy (select * from frame) to 'duckdb' (format parquet, partition_by (client), overwrite)"
    )

seen = {}
for folder in ("pandas", "polars", "arrow", "duckdb"):
    count = f"select client, count(*) from '{folder}/**/*.parquet' group by 1 order by 1"
    seen[folder] = dict(duckdb.execute(count).fetchall())
    print(folder, seen[folder])
assert len(pd.read_parquet("pandas")) == 20
assert seen["pandas"] == {"a": 8, "b": 4, "c": 8}
assert seen["polars"] == seen["arrow"] == {"a": 4, "b": 4, "c": 4}
assert seen["duckdb"] == {"a": 4, "c": 4}
PY
