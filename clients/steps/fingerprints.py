"""Hash every training sample with a salt that all clients share, so that equal ones are found.

References
----------
Ye, Zhu, Li, Gao, Liu, Zhang, Zhou, Zhang, "Data Duplication: A Novel Multi-Purpose Attack Paradigm
in Machine Unlearning", USENIX Security 2025 (arXiv 2501.16663): copies of the forgotten elsewhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clients.steps import Local, Outcome, Shard
from unlearning.protocol import Settings
from unlearning.records.commitment import fingerprint

NEEDS_MODEL = DRAWS = False


def fingerprints(model: None, local: Local, settings: Settings, generator: None) -> Outcome:
    """Return ``forget`` and ``retain``: a salted SHA-256 per sample, bytes of shape (n, 32).

    Settings: ``salt`` (hex), the same for all clients of one comparison. Whoever knows the salt can
    test whether a sample they hold themselves is among them, and learns nothing else.
    """
    salt = bytes.fromhex(str(settings["salt"]))
    arrays = {"forget": _hashes(local.forget, salt), "retain": _hashes(local.retain, salt)}
    # Where values or tasks alone are forgotten, an example is on both sides.
    count = len(np.union1d(local.positions, local.forget_positions))
    return Outcome(max(count, len(local.forget)), 0, arrays=arrays)


def _hashes(shard: Shard, salt: bytes) -> NDArray[np.uint8]:
    x, y = shard.features.cpu().numpy(), shard.labels.cpu().numpy()
    found = [fingerprint(salt, x[i], y[i]) for i in range(len(shard))]
    return np.frombuffer(b"".join(found), np.uint8).reshape(len(shard), 32)
