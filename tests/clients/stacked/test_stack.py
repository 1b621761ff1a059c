from __future__ import annotations

import numpy as np
import pytest

from clients.stacked import train
from clients.stacked.layers import layers_of
from clients.stacked.stack import Stack
from tests.support.side_by_side import jobs_of, mlp, works

PLAIN = {"local_epochs": 2, "batch_size": 8, "learning_rate": 0.2}


def test_what_gives_other_bits_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real = train.gradients

    def off(*given):  # type: ignore[no-untyped-def]
        found, gone = real(*given)
        return {name: step * (1 + 1e-6) for name, step in found.items()}, gone

    monkeypatch.setattr(train, "gradients", off)
    asked = works(mlp(), [9, 9], PLAIN)
    stack = Stack(layers_of(mlp()))
    answer = stack.work("train", jobs_of(asked), lambda i: asked[i][0].ran(asked[i][1]))
    assert "other bits" in stack.refused("train")
    assert stack.refused("synthetic") == ""  # other steps have bits of their own
    expected = asked[1][0].ran(asked[1][1]).arrays
    assert answer[1].arrays is not None
    assert expected is not None
    assert all(np.array_equal(answer[1].arrays[n], expected[n]) for n in expected)


def test_a_new_size_alone_is_tried_both_ways() -> None:
    stack, asked, alone = Stack(layers_of(mlp())), works(mlp(), [9, 9, 12], PLAIN), []

    def ran(place: int):  # type: ignore[no-untyped-def]
        alone.append(place)
        return asked[place][0].ran(asked[place][1])

    for jobs in (jobs_of(asked)[:2], jobs_of(asked)[:2], jobs_of(asked), jobs_of(asked)):
        stack.work("train", jobs, ran)
    assert alone == [0, 1, 0, 1, 2]
