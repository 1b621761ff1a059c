#!/usr/bin/env bash
# lightgbm 4.7.0: what a model keeps of rows that it was fitted again without.
#
# 1. `Booster.refit` on the rows that stay writes the model's file with all names of the categorical
#    column as it was first trained, the name of a person without rows included.
# 2. `Dataset.subset` keeps the bins of the whole: a model trained on the subset alone names the largest
#    value of a row that it never saw, and its trees differ from those of a data set of the same rows.
#
# Seen: pandas_categorical:[["ann", "bob", "cyd"]]; feature_infos=[-2.92...:77.125]; trees equal: False.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q lightgbm==4.7.0 pandas==3.1.1 numpy==2.4.6 scipy==1.17.1
"$there/v/bin/python" - <<'PY'
import lightgbm as lgb
import numpy as np
import pandas as pd

print("lightgbm", lgb.__version__)
rng = np.random.default_rng(0)
rows = pd.DataFrame(
    {"who": pd.Categorical(rng.choice(["ann", "bob", "cyd"], 300)), "x": rng.normal(size=300)}
)
y = rng.normal(size=300)
quiet = {"verbose": -1, "num_leaves": 4, "num_threads": 1, "min_data_in_bin": 1}
stays = (rows["who"] != "bob").to_numpy()
first = lgb.train(quiet, lgb.Dataset(rows, y), 5)
again = first.refit(rows[stays], y[stays], decay_rate=0.0).model_to_string()
print([line for line in again.splitlines() if line.startswith("pandas_categorical")])
assert '"bob"' in again

x = rng.normal(size=(300, 1))
x[0] = 77.125  # the row that is to be forgotten
whole = lgb.Dataset(x, y, free_raw_data=False, params=quiet).construct()
part = lgb.train(quiet, whole.subset(np.arange(1, 300)), 5).model_to_string()
fresh = lgb.train(quiet, lgb.Dataset(x[1:], y[1:]), 5).model_to_string()
print([line for line in part.splitlines() if line.startswith("feature_infos")])
same = part.split("parameters")[0] == fresh.split("parameters")[0]
print("trees equal:", same)
assert "77.125" in part and "77.125" not in fresh and not same
PY
