"""The catalogue holds every metric once, each with words for a reader."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace

import pytest

from unlearning.evaluation import catalogue, lira


def test_all_eighteen_metrics_are_there_in_order():
    found = catalogue.metrics_by_id()
    assert list(found) == [f"M{number}" for number in range(1, 19)]
    assert len({entry.name for entry in found.values()}) == 18
    for entry in found.values():
        assert all(
            dataclasses.asdict(entry)[field] for field in ("title", "unit", "perfect", "source")
        )
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", entry.name)
        assert entry.remembered in ("higher", "lower", None)


def test_two_metrics_of_one_id_are_refused(monkeypatch):
    catalogue.metrics_by_id.cache_clear()
    monkeypatch.setattr(lira, "METRICS", (*lira.METRICS, replace(lira.METRICS[0], name="again")))
    with pytest.raises(ValueError, match="M3"):
        catalogue.metrics_by_id()
    catalogue.metrics_by_id.cache_clear()
