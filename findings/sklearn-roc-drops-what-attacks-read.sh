#!/usr/bin/env bash
# scikit-learn 1.9.1: `roc_curve` leaves out the points at which membership attacks read their figure.
#
# The true-positive rate at a low false-positive rate is read as `tpr[fpr < low][-1]`. With scores of few values
# (votes, counts, rounded losses) neighbouring points lie on one line, and the default
# `drop_intermediate=True` keeps the ends of the line alone. The area is right, the figure is not.
#
# Seen: tpr at fpr < .1 is .025 by default and .475 with all points; the area is .70 in both.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1
"$there/v/bin/python" - <<'PY'
import numpy as np
import sklearn
from sklearn.metrics import auc, roc_curve

print("scikit-learn", sklearn.__version__)
# Twenty votes: at each count above 0 there are 50 members and 10 others, the rest has no vote.
votes = np.arange(1, 21)
scores = np.r_[np.repeat(votes, 50), np.zeros(1000), np.repeat(votes, 10), np.zeros(1800)]
member = np.r_[np.ones(2000), np.zeros(2000)]

read, areas = {}, {}
for dropped in (True, False):
    fpr, tpr, _ = roc_curve(member, scores, drop_intermediate=dropped)
    read[dropped], areas[dropped] = tpr[fpr < 0.1][-1], auc(fpr, tpr)
    print(f"drop_intermediate={dropped}: tpr at fpr < .1 is {read[dropped]}, area {areas[dropped]:.4f}")
assert abs(areas[True] - areas[False]) < 1e-12
assert read == {True: 0.025, False: 0.475}
PY
