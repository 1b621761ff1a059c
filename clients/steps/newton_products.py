"""What a client's part of a matrix makes of a direction, where the matrix is too large to send.

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


def newton_products(model: None, local: Local, settings: Settings, generator: None) -> Outcome:
    """Answer with a product per class, over the retained examples.

    The server sent ``weights`` and ``direction``, (C, d) each. The matrix is the Hessian of the
    losses at the weights; with the setting ``gram`` it is X'X.
    """
    x, labels = local.retain.table()
    rows, given = newton.rows_of(x), local.arrays
    curved = None if settings.get("gram") else given["weights"]
    answer = {
        "product": newton.products(rows, given["direction"], curved),
        "counts": np.bincount(labels, minlength=len(given["direction"])),
    }
    return Outcome(len(labels), len(labels), answer)
