#!/usr/bin/env bash
# flwr 1.42.0, xgboost 3.2.0: `FedXgbBagging` keeps one tree of each client and one client's base score.
#
# Expected: the union of the clients' trees. Found: of five trees that a client grew in the round four are
# dropped; of a model with three classes one tree of three is kept, and counted for class 0; and all trees
# stand on the base score of whoever answered first, since xgboost takes it from each client's own labels:
# the order of two replies turns the model over. Nothing is said; the model loads and predicts.
#
# Seen: 5 + 5 trees -> 6; classes of 3 + 3 trees -> [0, 1, 2, 0]; mean prediction over both clients' rows,
# half of which are ones: .111 with one client's reply first, .891 with the other's.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q flwr==1.42.0 xgboost==3.2.0 numpy==2.4.6
FLWR_TELEMETRY_ENABLED=0 "$there/v/bin/python" - <<'PY'
import json
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import xgboost
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedXgbBagging

print("flwr", version("flwr"), "xgboost", xgboost.__version__)


def grown(labels, trees, seed, **more):
    rows = np.random.default_rng(seed).normal(size=(len(labels), 3))
    rows[:, 0] += labels
    options = {"max_depth": 2, "nthread": 1, "objective": "binary:logistic"} | more
    return xgboost.train(options, xgboost.DMatrix(rows, labels), trees), rows


def merged(*models):
    """What the strategy makes of the replies of its first round."""
    strategy = FedXgbBagging()
    strategy.current_bst = b""
    replies = []
    for model in models:
        raw = np.frombuffer(bytes(model.save_raw("json")), dtype=np.uint8)
        content = RecordDict(
            {"arrays": ArrayRecord([raw]), "metrics": MetricRecord({"num-examples": 100})}
        )
        replies.append(SimpleNamespace(content=content, has_error=lambda: False))
    arrays, _ = strategy.aggregate_train(1, replies)
    made = xgboost.Booster()
    made.load_model(bytearray(arrays["0"].numpy().tobytes()))
    return made


few, many = np.repeat([1.0, 0.0], [10, 90]), np.repeat([1.0, 0.0], [90, 10])
kept = len(merged(grown(few, 5, 0)[0], grown(many, 5, 1)[0]).get_dump())
print("trees of 5 + 5:", kept)
assert kept == 6

(one, rows), (other, others) = grown(few, 1, 0), grown(many, 1, 1)
both = xgboost.DMatrix(np.concatenate([rows, others]))
first, second = merged(one, other).predict(both).mean(), merged(other, one).predict(both).mean()
print("mean prediction by who answers first:", first, second)
assert first < 0.2 and second > 0.8

three = {"objective": "multi:softprob", "num_class": 3}
model = merged(*(grown(np.arange(99.0) % 3, 1, seed, **three)[0] for seed in (2, 3)))
learner = json.loads(bytes(model.save_raw("json")))["learner"]
classes = learner["gradient_booster"]["model"]["tree_info"]
print("classes of 3 + 3 trees:", classes)
assert classes == [0, 1, 2, 0]
PY
