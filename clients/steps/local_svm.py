"""A client's own support vector machines, and exact unlearning from them.

References
----------
Cauwenberghs, Poggio, "Incremental and Decremental Support Vector Machine Learning", NIPS 2000.
"""

from __future__ import annotations

import numpy as np

from clients.steps import Local, Outcome
from clients.training import number
from unlearning.models import svm
from unlearning.models.svm_model import features_of
from unlearning.protocol import Settings

NEEDS_MODEL = DRAWS = False


def local_svm(model: None, local: Local, settings: Settings, generator: None) -> Outcome:
    """Answer with one machine per class against the rest.

    Settings: ``num_classes``, ``kernel``, ``num_features``, ``gamma``, ``root`` (seed of the
    features), ``ceiling``. Extras, to forget: ``alpha`` and ``bias`` of the answer before; the
    examples that go are then taken out one by one along the solution's path.
    """
    known = local.extras.get("alpha")
    x, labels, gone = _held(local, forgets=known is not None)
    features = features_of(
        x,
        kernel=str(settings["kernel"]),
        num_features=int(number(settings, "num_features")),
        gamma=number(settings, "gamma"),
        seed=int(number(settings, "root")),
    )
    kept = np.setdiff1d(np.arange(len(labels)), gone)
    products, ceiling = svm.Features(features), number(settings, "ceiling")
    machines, events = [], 0
    num_classes = int(number(settings, "num_classes"))
    for label in range(num_classes):
        signs = np.where(labels == label, 1.0, -1.0)
        if known is None:
            machines.append(svm.fit(products, signs, ceiling))
            continue
        before = svm.Machine(known[label], float(local.extras["bias"][label]))
        after, steps = svm.decrement(products, signs, ceiling, before, gone)
        machines.append(after)
        events += steps
    alpha = np.stack([machine.alpha for machine in machines])
    signs = np.where(labels[kept] == np.arange(num_classes)[:, None], 1.0, -1.0)
    answer = {
        "weights": (alpha * signs) @ features[kept],
        "bias": np.array([machine.bias for machine in machines]),
        "counts": np.bincount(labels[kept], minlength=num_classes),
        "alpha": alpha,
    }
    processed = len(kept) if known is None else len(gone)
    return Outcome(len(labels), processed, answer, {"events": events})


def _held(local: Local, *, forgets: bool) -> tuple[svm.Floats, svm.Integers, svm.Integers]:
    """Return examples in the order of their positions, and which of them go."""
    x, labels = local.retain.table()
    if not forgets:
        return x.astype(np.float64), labels, np.empty(0, np.int64)
    gone_x, gone_labels = local.forget.table()
    positions = np.concatenate([local.positions, local.forget_positions])
    order = np.argsort(positions)
    both = np.concatenate([x, gone_x])[order].astype(np.float64)
    gone = np.flatnonzero(order >= len(labels))
    return both, np.concatenate([labels, gone_labels])[order], gone
