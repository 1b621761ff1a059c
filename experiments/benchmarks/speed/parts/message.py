"""A message to an empty client on Ray beside plain Flower's FedAvg, as a slope over rounds."""

from __future__ import annotations

from experiments.benchmarks.machinery import message_seconds
from experiments.benchmarks.speed.clock import Found, Setting

_CLIENTS, _SHORT, _LONG = 10, 2, 12


def message(setting: Setting) -> Found:
    """Measure both in turn in one simulation; wall seconds, since workers outlive a run."""
    ours, plain = message_seconds(_CLIENTS, _SHORT, _LONG, setting.repeats)
    return Found(
        {"message_ratio": ours / plain},
        {"wall ms of a message": {"ours": 1e3 * ours, "plain FedAvg": 1e3 * plain}},
    )
