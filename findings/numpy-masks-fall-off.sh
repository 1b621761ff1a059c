#!/usr/bin/env bash
# numpy 2.4.6 with flwr 1.42.0, safetensors 0.8.0, scikit-learn 1.9.1: what a masked array hides is sent and learned.
#
# Expected: values masked with `numpy.ma` are left out, as in the array's own mean, or the call raises. Found:
# Flower's `Array` and safetensors write the values beneath the mask, and no mask, so the server gets what a
# client had hidden; `StandardScaler` and `LinearRegression` learn from them. Nothing is said. pandas minds the
# mask.
#
# Seen: a column of 1, 2, 3 and a masked million: mean 2 by numpy, the million in what Flower and safetensors
# hand over, mean 250001.5 by scikit-learn.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q flwr==1.42.0 safetensors==0.8.0 scikit-learn==1.9.1 scipy==1.17.1 pandas==3.1.1 numpy==2.4.6
FLWR_TELEMETRY_ENABLED=0 "$there/v/bin/python" - <<'PY'
from importlib.metadata import version

import numpy as np
import pandas as pd
from flwr.app import Array, ArrayRecord
from safetensors.numpy import load, save
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import StandardScaler

for name in ("numpy", "flwr", "safetensors", "scikit-learn", "pandas"):
    print(name, version(name), end=" ")
print()
hidden = np.ma.masked_greater(np.array([1.0, 2.0, 3.0, 1e6]), 1e5)
assert hidden.mean() == 2

sent = ArrayRecord({"w": Array(hidden)})["w"].numpy()
stored = load(save({"w": hidden}))["w"]
mean = StandardScaler().fit(hidden[:, None]).mean_[0]
line = LinearRegression().fit(np.arange(4.0)[:, None], hidden).coef_[0]
print("numpy's mean", hidden.mean(), "| Flower hands over", sent, "| safetensors", stored)
print("scikit-learn's mean", mean, "slope", line, "| pandas' mean", pd.Series(hidden).mean())
assert sent[3] == stored[3] == 1e6 and not np.ma.isMaskedArray(sent)
assert mean == 250001.5 and line > 1e5
assert pd.Series(hidden).mean() == 2
PY
