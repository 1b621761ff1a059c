from __future__ import annotations

import pytest

from unlearning.cost import Cost, speedup

ONE = Cost(wall_s=1.5, client_rounds=2, client_s=0.5, examples=10, bytes_up=100, bytes_down=200)


def test_costs_add_up_field_by_field() -> None:
    assert Cost(3.0, 4, 1.0, 20, 200, 400) == ONE + ONE
    assert ONE + ONE - ONE == ONE
    assert ONE + Cost() == ONE


def test_figures_by_name() -> None:
    assert ONE.to_json() == {
        "wall_s": 1.5,
        "client_rounds": 2,
        "client_s": 0.5,
        "examples": 10,
        "bytes_up": 100,
        "bytes_down": 200,
    }


@pytest.mark.parametrize(("reference", "value", "wanted"), [(200, 45, 200 / 45), (5, 10, 0.5)])
def test_speedup_is_a_ratio(reference: float, value: float, wanted: float) -> None:
    assert speedup(reference, value) == wanted


def test_nothing_spent_has_no_speedup() -> None:
    assert speedup(5, 0) is None
