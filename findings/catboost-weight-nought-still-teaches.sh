#!/usr/bin/env bash
# catboost 1.2.10: rows of weight 0 still teach the model: their labels by the category, their values by the borders.
#
# Expected: a row of weight 0 counts for nothing, so that setting a person's weights to 0 is leaving the person
# out. Found: the statistics of labels that stand for a category count every row, whatever it weighs; turn the
# labels of the rows of weight 0, and the predictions move, for their category most and for the others too. The
# borders of a number are drawn over all rows: here half of them lie where only rows of weight 0 are.
#
# Seen: a town of which all rows weigh 0 is predicted .31 or .83 with its labels all 1 or all 0, other towns .33
# and .38; 4 of 8 borders lie among rows of weight 0, and the error on the rest is .059 instead of .020.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q catboost==1.2.10 numpy==2.4.6 pandas==3.1.1
"$there/v/bin/python" - <<'PY'
import catboost
import numpy as np
import pandas as pd

print("catboost", catboost.__version__)
options = {"iterations": 30, "random_seed": 0, "thread_count": 1, "verbose": False}
options["allow_writing_files"] = False
draw = np.random.default_rng(0)
rows = np.arange(200)


def fitted(table, labels, weights, **more):
    model = catboost.CatBoostRegressor(**options, **more)
    return model.fit(table, labels, sample_weight=weights)


# A category: the 20 rows of one town weigh 0.
gone = rows < 20
towns = pd.DataFrame({"town": np.where(gone, "gone", draw.choice(["A", "B", "C"], len(rows)))})
labels = draw.integers(0, 2, len(rows)).astype(float)
asked = pd.DataFrame({"town": ["gone", "A"]})
said = {}
for turned in (1.0, 0.0):
    model = fitted(towns, np.where(gone, turned, labels), 1.0 - gone, cat_features=["town"])
    said[turned] = model.predict(asked)
    print(f"labels of weight 0 all {turned}: predicted for their town and for A {said[turned].round(3)}")
assert abs(said[1.0][0] - said[0.0][0]) > 0.4 and abs(said[1.0][1] - said[0.0][1]) > 0.02

# A number: the 100 rows with values above 5 weigh 0, the others lie between 0 and 1.
gone = rows < 100
values = draw.random((len(rows), 1))
labels = np.sin(6 * values[:, 0])
values[gone] += 5
with_them = fitted(values, labels, 1.0 - gone, border_count=8)
without = fitted(values[~gone], labels[~gone], None, border_count=8)
found = []
for name, model in (("with rows of weight 0", with_them), ("without", without)):
    borders = np.array(model.get_borders()[0])
    error = np.mean((model.predict(values[~gone]) - labels[~gone]) ** 2)
    found.append((int((borders > 1).sum()), error))
    print(f"{name}: {found[-1][0]} of {len(borders)} borders above 1, error on the others {error:.3f}")
assert found[0][0] == 4 and found[1][0] == 0 and found[0][1] > 2 * found[1][1]
PY
