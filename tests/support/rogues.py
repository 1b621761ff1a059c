"""Strategies that go wrong, each in another way."""

from __future__ import annotations

import numpy as np

from strategies.global_model.fine_tune import FineTune
from unlearning.errors import UnsupportedRequestError
from unlearning.protocol import Instruction


class Raises(FineTune):
    """Divides by zero."""

    def prepare(self, request, history, arrays):
        return arrays, 1 // 0


class Leaves(FineTune):
    """Calls ``sys.exit``, as a library under it may."""

    def prepare(self, request, history, arrays):
        raise SystemExit(3)


class Refuses(FineTune):
    """Sees only at work that it cannot."""

    def prepare(self, request, history, arrays):
        raise UnsupportedRequestError("not on a Sunday")


class NotFinite(FineTune):
    """Returns NaN."""

    def prepare(self, request, history, arrays):
        return {name: np.full_like(array, np.nan) for name, array in arrays.items()}, 0


class WrongShape(FineTune):
    """Returns a model of another shape."""

    def prepare(self, request, history, arrays):
        return {name: array[:1] for name, array in arrays.items()}, 0


class WrongNames(FineTune):
    """Returns a model of other names."""

    def prepare(self, request, history, arrays):
        return {f"{name}x": array for name, array in arrays.items()}, 0


class NoInit(FineTune):
    """Forgets to call the constructor of what it is."""

    def __init__(self):
        self.mine = 1


class Meddles(FineTune):
    """Writes into what it is given, then fails."""

    def prepare(self, request, history, arrays):
        for array in arrays.values():
            if array.flags.writeable:
                array[...] = 0
        self.federation.train["learning_rate"] = 1e3
        raise RuntimeError("after meddling")


class Keeps(FineTune):
    """Has clients make something that cannot be made."""

    needs = frozenset({"no_such_step"})

    def prepare(self, request, history, arrays):
        return arrays, 1

    def instruct(self, server_round):
        return dict.fromkeys(super().instruct(server_round), Instruction("no_such_step"))
