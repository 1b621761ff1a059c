"""Several tasks as named arrays: who is averaged over whom, and what leads back."""

from __future__ import annotations

import numpy as np
import pytest

from unlearning import arrays as named
from unlearning.errors import FederationError
from unlearning.models import heads
from unlearning.protocol import Reply

MODEL = {
    "trunk.0.weight": np.zeros((2, 2), np.float32),
    "trunk.count": np.array(0),
    "heads.left.weight": np.zeros(2, np.float32),
    "isolated.right.0.weight": np.ones(2, np.float32),
}


def reply(client: int, size: int, value: float, **examples: float) -> Reply:
    update = {
        name: np.full_like(array, value) if array.dtype.kind == "f" else array
        for name, array in MODEL.items()
    }
    metrics = {f"examples-of/{'' if k == 'trunk' else k}": v for k, v in examples.items()}
    return Reply(client, size, named.apply_update(MODEL, update), metrics, update)


def test_every_part_is_averaged_over_those_who_trained_it() -> None:
    """Trunk: (6 * 1 + 2 * 4) / 8 = 1.75. Left: client 0 alone, 1. Right: client 1 alone, 1 + 4."""
    after = heads.average(
        MODEL,
        [reply(0, 6, 1.0, left=6, right=0, trunk=6), reply(1, 2, 4.0, left=0, right=2, trunk=2)],
    )
    assert (after["trunk.0.weight"] == 1.75).all()
    assert (after["heads.left.weight"] == 1).all()
    assert (after["isolated.right.0.weight"] == 5).all()
    assert named.mismatch(MODEL, after) is None


def test_part_that_nobody_trained_is_unchanged_and_no_claim_exceeds_the_examples() -> None:
    after = heads.average(
        MODEL, [reply(0, 1, 1.0, left=1e9, right=0), reply(1, 3, 5.0, left=3, right=-4)]
    )
    assert (after["isolated.right.0.weight"] == 1).all()
    assert (after["heads.left.weight"] == (1 * 1 + 3 * 5) / 4).all()


def test_reply_without_a_model_is_refused() -> None:
    with pytest.raises(FederationError, match="client 3 sent no model"):
        heads.average(MODEL, [Reply(3, 1, {})])


def test_names_say_what_belongs_to_whom() -> None:
    assert heads.tasks_of(MODEL) == ("left", "right")
    assert heads.is_isolated(MODEL, "right")
    assert not heads.is_isolated(MODEL, "left")
    assert not heads.is_isolated(MODEL, "middle")
    assert heads.trunk(MODEL).keys() == {"trunk.0.weight"}
    other = {name: array + 1 for name, array in MODEL.items()}
    changed = [n for n, a in heads.reset(other, MODEL, ["left"]).items() if a is MODEL[n]]
    assert changed == ["heads.left.weight"]


def test_only_what_leads_back_is_taken_out() -> None:
    """A = (1, 0). (-2, 3) becomes (0, 3); (2, 3) leads away and stays."""
    away = {"w": np.array([1.0, 0.0])}
    back = {"w": np.array([-2.0, 3.0]), "head": np.array([7.0])}
    assert heads.without_return(back, away)["w"].tolist() == [0, 3]
    assert heads.without_return(back, away)["head"].tolist() == [7]
    on = {"w": np.array([2.0, 3.0])}
    assert heads.without_return(on, away)["w"].tolist() == [2, 3]
    still = {"w": np.zeros(2)}
    assert heads.without_return(back, still)["w"].tolist() == [-2, 3]
