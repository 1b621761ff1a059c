#!/usr/bin/env bash
# pandas 3.1.1: a list with one blank entry takes out the person with the next number, and not the one asked for.
#
# Expected: nullable `Int64` holds long numbers exactly, blanks or not, and `isin` compares them exactly, as it
# does with a plain list that holds a None. Found: one blank in the list, and `isin` goes by 64-bit floats, for
# rows of either integer type and for an index. Numbers above 2**53 (those that are made of a time stamp, say)
# are rounded: the neighbour is deleted, whoever asked stays, and the count of deleted rows is right. `merge`
# and `==` compare the same columns exactly.
#
# Seen: asked for ...993 with a blank after it: ...992 is gone and ...993 stays; without the blank ...993 is
# gone.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q pandas==3.1.1 numpy==2.4.6
"$there/v/bin/python" - <<'PY'
import io

import pandas as pd

print("pandas", pd.__version__)
first = 9007199254740992
people = [first, first + 1, first + 2]


def asked(text):
    """The list of who is to be deleted, as read from a file of one column."""
    return pd.read_csv(io.StringIO("id,why\n" + text), dtype_backend="numpy_nullable").id


def gone(ids, forget):
    return ids[ids.isin(forget)].tolist()


full, blank = asked(f"{first + 1},a\n"), asked(f"{first + 1},a\n,b\n")
assert str(full.dtype) == str(blank.dtype) == "Int64"
assert full[0] == blank[0] == first + 1
for name, ids in {
    "int64": pd.Series(people),
    "Int64": pd.Series(people, dtype="Int64"),
    "index": pd.Index(people),
}.items():
    print(f"{name}: asked for {first + 1}: without a blank {gone(ids, full)}, with one {gone(ids, blank)}")
    assert gone(ids, full) == gone(ids, [first + 1, None]) == gone(ids, blank.dropna()) == [first + 1]
    assert gone(ids, blank) == [first]
joined = pd.DataFrame({"id": people}).merge(blank.to_frame(), on="id").id.tolist()
print("merge finds", joined)
assert joined == [first + 1]
PY
