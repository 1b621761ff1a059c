#!/usr/bin/env bash
# blosc2 4.14.1: an array deleted from an embed store goes along with whatever is sent or written from it.
#
# Expected: `del store["/b"]` takes the array out, as the listing then says. Found: the name goes, the bytes
# stay: in the file, for good, since nothing packs it anew; in `to_cframe()`, so whoever is sent the store has
# the array; and in the frame that the receiver writes. A `DictStore` or `TreeStore` that embeds small arrays
# (`threshold`) keeps them likewise, one that writes each to its own file does not. A store filled anew by key
# is clean.
#
# Seen: the deleted numbers are in the file, the frame, the receiver's frame and both stores with a threshold;
# not in the store filled anew nor in the one of own files.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q blosc2==4.14.1 numpy==2.4.6
"$there/v/bin/python" - "$there" <<'PY'
import sys
from pathlib import Path

import blosc2
import numpy as np

print("blosc2", blosc2.__version__)
there = Path(sys.argv[1])
plain = blosc2.CParams(clevel=0)  # so that the numbers can be looked for as they are
secret = np.arange(2_000_000, 2_001_000)
mark = secret[100:110].tobytes()


def array(numbers):
    return blosc2.asarray(numbers, cparams=plain)


def kept(kind, name, **options):
    """Whether a store of that kind holds the numbers once they are deleted and it is closed."""
    path = there / name
    store = kind(str(path), mode="w", cparams=plain, **options)
    store["/a"], store["/b"] = array(np.arange(1000)), array(secret)
    store.close()
    store = kind(str(path), mode="a")
    del store["/b"]
    assert list(store.keys()) == ["/a"]
    store.close()
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return any(mark in file.read_bytes() for file in files)


path = there / "own.b2e"
store = blosc2.EmbedStore(str(path), mode="w", cparams=plain)
store["/a"], store["/b"] = array(np.arange(1000)), array(secret)
del store["/b"]
store["/c"] = array(np.arange(1000) * 3)
assert sorted(store.keys()) == ["/a", "/c"]
sent = store.to_cframe()
received = blosc2.from_cframe(sent)
assert sorted(received.keys()) == ["/a", "/c"]
anew = blosc2.EmbedStore(str(there / "anew.b2e"), mode="w", cparams=plain)
for key in store.keys():
    anew[key] = store[key]

seen = {
    "file": mark in path.read_bytes(),
    "frame": mark in sent,
    "receiver's frame": mark in received.to_cframe(),
    "DictStore with a threshold": kept(blosc2.DictStore, "dict.b2d", threshold=10**6),
    "TreeStore with a threshold": kept(blosc2.TreeStore, "tree.b2z", threshold=10**6),
    "filled anew": mark in anew.to_cframe(),
    "DictStore of own files": kept(blosc2.DictStore, "files.b2d", threshold=0),
}
for where, is_there in seen.items():
    print(f"{where}: the deleted numbers are {'' if is_there else 'not '}there")
assert list(seen.values()) == [True] * 5 + [False] * 2
PY
