#!/usr/bin/env bash
# xgboost 3.2.0: trees refreshed on the rows that stay keep the mean of all rows as their base score.
#
# `process_type = "update"` with `updater = "refresh"` works out every leaf anew from the rows given,
# and is what one takes to make a grown model forget rows without growing it again. The intercept that
# `train` estimated (`base_score`) is no leaf: it stays at the mean of the old rows, told to nobody, and
# the predictions stay drawn towards it. Given by hand, it is heeded.
#
# Seen: base score 7.1982 before and after (mean of the rows that stay: 4.7100); mean prediction 4.7833.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q xgboost-cpu==3.2.0 numpy==2.4.6 scipy==1.17.1
"$there/v/bin/python" - <<'PY'
import json

import numpy as np
import xgboost as xgb

print("xgboost", xgb.__version__)
rng = np.random.default_rng(0)
x = rng.normal(size=(400, 3))
y = 2 * x[:, 0] + rng.normal(size=400) * 0.1 + 5
x[0], y[0] = [77.125, -3.0, 9.0], 1000.0  # the row that is to be forgotten
rest, gone = xgb.DMatrix(x[1:], y[1:]), y[0]
settings = {"max_depth": 3, "eta": 0.3, "nthread": 1, "tree_method": "exact"}


def base(model):
    told = json.loads(model.save_config())["learner"]["learner_model_param"]["base_score"]
    return float(told.strip("[]"))


refresh = settings | {"process_type": "update", "updater": "refresh", "refresh_leaf": True}
model = xgb.train(settings, xgb.DMatrix(x, y), 10)
refreshed = xgb.train(refresh, rest, 10, xgb_model=model)
told = xgb.train(refresh | {"base_score": float(y[1:].mean())}, rest, 10, xgb_model=model)
print("mean of all rows", round(y.mean(), 4), "of the rest", round(y[1:].mean(), 4))
print("base score: trained", base(model), "refreshed", base(refreshed), "given by hand", base(told))
print("mean prediction, refreshed", round(float(refreshed.predict(rest).mean()), 4))
assert abs(base(refreshed) - y.mean()) < 1e-4
assert abs(base(told) - y[1:].mean()) < 1e-4
assert abs(refreshed.predict(rest).mean() - y[1:].mean()) > 0.05
PY
