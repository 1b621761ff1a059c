#!/usr/bin/env bash
# scikit-learn 1.9.1: one row of weight 0 with a large value unmakes SVC, SVR and GaussianNB.
#
# Expected: a row of weight 0 is as good as absent; tests of scikit-learn hold trees and linear models to that.
# Found: `SVC` and `SVR` take the width of their kernel from the variance of all rows, `GaussianNB` what it adds
# to each variance, whatever the rows weigh. A person who was taken out by a weight of 0, and whose value is a
# million where others have about one, widens them until little can be told apart. Nothing is said.
#
# Seen: on the 200 rows that count, with the row of weight 0 and without it: SVC is right in .525 and .965, SVR
# explains 0 and .95 of the variance, GaussianNB is right in .88 and .95; logistic regression and a tree agree.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1
OMP_NUM_THREADS=1 "$there/v/bin/python" - <<'PY'
import numpy as np
import sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import SVC, SVR
from sklearn.tree import DecisionTreeClassifier

print("scikit-learn", sklearn.__version__)
draw = np.random.default_rng(0)
rows = draw.normal(size=(200, 2))
sides = (rows[:, 0] > 0).astype(int)
sides[draw.random(200) < 0.05] ^= 1
with_one = np.vstack([rows, [[0.0, 1e6]]])
weights = np.append(np.ones(200), 0.0)


def scores(kind, labels, **options):
    """How good it is on the rows that count: with the row of weight 0, and without it."""
    both = kind(**options).fit(with_one, np.append(labels, labels[0]), sample_weight=weights)
    alone = kind(**options).fit(rows, labels)
    return round(both.score(rows, labels), 3), round(alone.score(rows, labels), 3)


seen = {
    "SVC": scores(SVC, sides),
    "SVR (R2)": scores(SVR, 3 * rows[:, 0]),
    "GaussianNB": scores(GaussianNB, sides),
    "LogisticRegression": scores(LogisticRegression, sides),
    "DecisionTreeClassifier": scores(DecisionTreeClassifier, sides, max_depth=3, random_state=0),
}
for name, (both, alone) in seen.items():
    print(f"{name}: {both} with the row of weight 0, {alone} without it")
assert seen["SVC"][0] < 0.6 < 0.9 < seen["SVC"][1]
assert seen["SVR (R2)"][0] < 0.1 < 0.9 < seen["SVR (R2)"][1]
assert seen["GaussianNB"][0] < seen["GaussianNB"][1] - 0.05
for name in ("LogisticRegression", "DecisionTreeClassifier"):
    assert seen[name][0] == seen[name][1]
PY
