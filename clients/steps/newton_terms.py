"""Gradient and Hessian of logistic regression on a client's examples.

References
----------
Guo, Goldstein, Hannun, van der Maaten, "Certified Data Removal from Machine Learning Models", ICML
2020 (arXiv 1911.03030).
"""

from __future__ import annotations

import numpy as np

from clients.steps import Local, Outcome
from unlearning.models import newton
from unlearning.protocol import Settings

NEEDS_MODEL = DRAWS = False


def newton_terms(model: None, local: Local, settings: Settings, generator: None) -> Outcome:
    """Answer with the sums of gradients, Hessians and x x' over the retained examples.

    The server sent ``weights`` of shape (C, d). With the setting ``lean`` the answer holds no
    matrix of shape (d, d): instead of them ``stretch``, (1,), the largest eigenvalue of X'X.
    """
    x, labels = local.retain.table()
    rows = newton.rows_of(x)
    if settings.get("lean"):
        found = newton.terms(local.arrays["weights"], rows, labels, matrices=False)
        answer = {
            "gradient": found.gradient,
            "counts": found.counts,
            "stretch": np.array([newton.stretch(rows)]),
        }
        return Outcome(len(labels), len(labels), answer)
    found = newton.terms(local.arrays["weights"], rows, labels)
    answer = {
        "gradient": found.gradient,
        "hessian": found.hessian,
        "gram": found.gram,
        "counts": found.counts,
    }
    return Outcome(len(labels), 2 * len(labels), answer)
