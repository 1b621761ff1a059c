#!/usr/bin/env bash
# nvflare 2.9.0: the weighted mean overflows in the arrays' own type before it is divided.
#
# `WeightedAggregationHelper` multiplies each client's array by its number of examples, adds up and divides
# at the end, all in the type that came in. Two clients of 70,000 rows with half-precision weights of 1 and
# 2 make infinity (NumPy warns of a cast); 300 rows suffice for a weight of 250. Eight-bit arrays wrap around
# unsaid. Flower's FedAvg scales by the share first and stays finite.
#
# Seen: [inf inf] for twice [1, 2] in half precision; [-28.] for twice [100] in int8.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q nvflare==2.9.0
"$there/v/bin/python" -W ignore::RuntimeWarning - <<'PY'
from importlib.metadata import version

import numpy as np
from nvflare.app_common.aggregators.weighted_aggregation_helper import WeightedAggregationHelper

print("nvflare", version("nvflare"))


def mean(array, examples):
    helper = WeightedAggregationHelper()
    for site in ("site-1", "site-2"):
        helper.add({"w": array.copy()}, examples, site, 0)
    return helper.get_result()["w"]


half = mean(np.array([1.0, 2.0], dtype=np.float16), 70_000)
few = mean(np.array([250.0], dtype=np.float16), 300)
small = mean(np.array([100], dtype=np.int8), 2)
print("half precision:", half, half.dtype, "| 300 rows:", few, "| int8:", small)
assert np.isinf(half).all() and np.isinf(few).all() and small[0] == -28
assert np.array_equal(mean(np.array([1.0, 2.0], dtype=np.float32), 70_000), [1, 2])
PY
