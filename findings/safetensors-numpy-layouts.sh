#!/usr/bin/env bash
# safetensors 0.8.0, NumPy: arrays that do not lie in C order come back with other numbers.
#
# `safetensors.numpy.save` and `save_file` write the buffer as it lies in memory beside the shape as it
# is seen: Fortran order, a transpose and a strided view are read back wrong, without a word. (Its face
# for PyTorch refuses tensors of such layouts by name; byte order is handled.)
#
# Seen: C order True, Fortran order False, transposed False, every second False, big-endian True.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q safetensors==0.8.0 numpy==2.4.6
"$there/v/bin/python" - "$there/file" <<'PY'
import sys

import numpy as np
import safetensors
from safetensors.numpy import load, load_file, save, save_file

print("safetensors", safetensors.__version__)
plain = np.arange(6, dtype=np.float32).reshape(2, 3)
arrays = {
    "C order": plain,
    "Fortran order": np.asfortranarray(plain),
    "transposed": plain.T,
    "every second": np.arange(6, dtype=np.float32)[::2],
    "big-endian": np.arange(3, dtype=">f4"),
}
for name, array in arrays.items():
    save_file({"w": array}, sys.argv[1])
    same = np.array_equal(load(save({"w": array}))["w"], array)
    assert same == np.array_equal(load_file(sys.argv[1])["w"], array)
    print(name, same)
    assert same == (name in {"C order", "big-endian"})
PY
