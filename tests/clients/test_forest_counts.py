"""What a client keeps of its examples between the messages of a forest."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clients.local import Chosen, Shard
from clients.steps.forest_counts import _Binned
from unlearning.models.tree_sums import Table
from unlearning.models.trees import Plan

PLAN, SIZE = Plan(seed=0, inputs=3), 12


def examples() -> Shard:
    generator = np.random.default_rng(0)
    x = generator.random((SIZE, 3)).astype(np.float32)
    return Shard(torch.from_numpy(x), torch.from_numpy(generator.integers(0, 2, SIZE)))


def test_what_is_left_is_copied_and_nothing_kept_of_what_went(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, kept = examples(), _Binned()
    rows = np.setdiff1d(np.arange(SIZE), [3, 7])
    left = Chosen(whole, rows)
    kept.narrowed(left)  # there is nothing to drop yet
    table, _ = kept.of(PLAN, whole)
    binned = table.bins.copy()
    assert kept.of(PLAN, whole)[0] is table
    monkeypatch.setattr(Plan, "binned", None)  # nothing is binned again
    kept.narrowed(left)
    assert kept._held is not None
    assert len(kept._held[1]) == len(kept._held[2]) == SIZE - 2
    assert not np.shares_memory(kept._held[1].bins, table.bins)
    found, labels = kept.of(PLAN, Chosen(whole, rows.copy()))
    assert np.array_equal(found.bins, binned[rows])
    assert np.array_equal(labels, whole.labels.numpy()[rows])


def test_what_comes_back_is_binned_anew() -> None:
    """As where a request is withdrawn, or another federation of this process asks."""
    whole, kept = examples(), _Binned()
    kept.of(PLAN, Chosen(whole, np.array([1, 2])))
    table, labels = kept.of(PLAN, whole)
    assert np.array_equal(table.bins, Table(PLAN, whole.table()[0]).bins)
    assert len(labels) == SIZE
