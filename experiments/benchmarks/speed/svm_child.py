"""Fit a machine on the features of Adult and take examples out; print CPU seconds.

Arguments, as one JSON object: ``table`` (an ``.npz`` with ``x`` and ``signs``), ``count``,
``refits``. In a process of its own, so that its memory is its own.
"""

import json
import sys
import time

import numpy as np

from unlearning.models import svm

FEATURES, CEILING = 256, 10.0


def main(table: str, count: int, refits: int) -> None:
    """Print seconds of the fit and of each deletion, and the largest distance from refits."""
    with np.load(table) as stored:
        x, signs = stored["x"].astype(np.float64), stored["signs"]
    features = svm.Features(svm.fourier(x, FEATURES, 1 / (x.shape[1] * float(x.var())), 0))
    del x
    begun = time.process_time()
    machine = svm.fit(features, signs, CEILING)
    fitted = time.process_time() - begun
    taken: list[float] = []
    events: list[int] = []
    distance = 0.0
    for gone in np.random.default_rng(0).permutation(len(signs))[:count]:
        begun = time.process_time()
        after, steps = svm.decrement(features, signs, CEILING, machine, np.array([gone]))
        taken.append(time.process_time() - begun)
        events.append(steps)
        if steps and refits:  # one that moved others; the rest change nothing
            refits -= 1
            kept = np.arange(len(signs)) != gone
            rows = features.rows[kept]
            again = svm.fit(svm.Features(rows), signs[kept], CEILING)
            moved = (signs[kept] * (again.alpha - after.alpha)) @ rows
            distance = max(distance, float(np.abs(moved).max()), abs(again.bias - after.bias))
    print(
        json.dumps({"fit_s": fitted, "deletions_s": taken, "events": events, "distance": distance})
    )


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
