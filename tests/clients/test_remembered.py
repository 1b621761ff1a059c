"""What a process remembers of examples is found by their content, and by nothing else."""

from __future__ import annotations

import numpy as np
import torch

from clients.remembered import Attached, Remembered


def test_equal_examples_are_known_again_and_others_are_not() -> None:
    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        return made[-1]

    known: Remembered[int] = Remembered()
    x = np.arange(6.0).reshape(3, 2)
    assert known.of(x, "a", make) == 0
    assert known.of(x.copy(), "a", make) == 0
    assert known.of(np.asfortranarray(x), "a", make) == 0
    assert known.of(x, "b", make) == 1
    assert known.of(x.reshape(2, 3), "a", make) == 2
    assert known.of(x.astype(np.float32), "a", make) == 3
    x[0, 0] = 7  # the same memory, other examples
    assert known.of(x, "a", make) == 4
    assert known.of(np.zeros((0, 2)), "a", make) == 5


def test_only_the_latest_are_kept() -> None:
    known: Remembered[object] = Remembered(most=2)
    one, two, three = (np.full(2, float(k)) for k in range(3))
    first = known.of(one, "", object)
    second = known.of(two, "", object)
    assert known.of(one, "", object) is first
    known.of(three, "", object)
    assert known.of(one, "", object) is first
    assert known.of(two, "", object) is not second


def test_what_is_attached_is_known_by_the_tensor_itself_and_goes_with_it() -> None:
    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        return made[-1]

    known: Attached[int] = Attached()
    one, other = torch.zeros(3), torch.zeros(3)
    assert known.of(one, "a", make) == known.of(one, "a", make) == 0
    assert known.of(other, "a", make) == 1  # equal, and another one
    assert known.of(one, "b", make) == 2
    one[0] = 7  # the same memory, other values
    assert known.of(one, "b", make) == 3
    assert len(known._things) == 2
    del one
    assert len(known._things) == 1
