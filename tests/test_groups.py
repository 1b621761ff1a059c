"""Tests that share what their module made run on one worker; else each worker makes it again."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def made() -> list[int]:
    return []


def test_a_module_that_shares_is_one_group(made: list[int], request: pytest.FixtureRequest) -> None:
    marker = request.node.get_closest_marker("xdist_group")
    assert marker is not None
    assert marker.args == ("tests/test_groups.py",)
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("tests do not run in groups here: make test runs them so")
    # What pytest-xdist tells groups apart by.
    assert request.node.nodeid.endswith("@tests/test_groups.py")
