#!/usr/bin/env bash
# pandas 3.1.1, pyarrow 26.0.1: a person whose rows were dropped is still named in the file.
#
# A categorical column keeps every category it ever had. Rows are filtered, the index is reset, and the
# parquet (or feather) file of what is left holds the name of the one who left: in its dictionary, and in
# whatever is made of it later (groups, dummy columns). `remove_unused_categories` is what deletes it.
#
# Seen: the bytes b"bob" in both files; groups ann 1, bob 0, cyd 1; False after the removal.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q pandas==3.1.1 pyarrow==26.0.1 numpy==2.4.6
"$there/v/bin/python" - <<'PY'
import io

import pandas as pd

print("pandas", pd.__version__)


def written(table, how):
    out = io.BytesIO()
    getattr(table, how)(out)
    return out.getvalue()


rows = pd.DataFrame({"who": pd.Categorical(["ann", "bob", "cyd"]), "x": [1, 2, 3]})
left = rows[rows["who"] != "bob"].reset_index(drop=True)
for how in ("to_parquet", "to_feather"):
    print(how, "holds the name:", b"bob" in written(left, how))
    assert b"bob" in written(left, how)
back = pd.read_parquet(io.BytesIO(written(left, "to_parquet")))
print(back.groupby("who", observed=False).size().to_dict(), list(pd.get_dummies(back["who"])))
assert list(back["who"].cat.categories) == ["ann", "bob", "cyd"]
clean = left.assign(who=left["who"].cat.remove_unused_categories())
print("after remove_unused_categories:", b"bob" in written(clean, "to_parquet"))
assert b"bob" not in written(clean, "to_parquet")
PY
