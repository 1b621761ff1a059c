"""Random sequences of requests, served in two federations that differ in what is forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from strategies.base import UnlearningStrategy
from tests.support.toy import ToyFederation
from unlearning import arrays as named
from unlearning.request import Request, Scope

__all__ = ["answers_of_random_sequences", "few_or_many"]

Make = Callable[[], UnlearningStrategy]


def few_or_many(few: int) -> pytest.MarkDecorator:
    """Have a test take a ``number`` of sequences: a few, and many of a night."""
    marks = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(1800)]
    return pytest.mark.parametrize("number", [few, pytest.param(200, marks=marks)])


def random_requests(generator: np.random.Generator, sizes: dict[int, int]) -> list[Request]:
    """Return one to three requests for clients and samples that do not empty the federation."""
    wanted: list[Request] = []
    left = dict(sizes)
    for place in range(int(generator.integers(1, 4))):
        client = int(generator.choice(sorted(left)))
        if generator.random() < 0.5 and len(left) > 2:
            del left[client]
            wanted.append(Request(Scope.CLIENT, clients=(client,), id=str(place)))
        else:
            some = generator.choice(sizes[client], int(generator.integers(1, 4)), replace=False)
            samples = {client: tuple(map(int, some))}
            wanted.append(Request(Scope.SAMPLE, samples=samples, id=str(place)))
    return wanted


def change(toy: ToyFederation, asked: list[Request], salt: float) -> None:
    """Add something to the features of all that is going to be forgotten."""
    for client, data in toy.shards.items():
        for one in asked:
            gone = one.omission(client)
            hit = torch.full((len(data),), gone.everything)
            hit[list(gone.samples)] = True
            data.features[hit] += salt


def answers_of_random_sequences(
    make: Make, home: Path, number: int, *, rounds: int = 3, fraction: float = 0.6
) -> Iterator[tuple[str, str]]:
    """Yield the digests of two federations' answers to the same requests, ``number`` times.

    They learned from different data of the forgotten, and from the same of all others. That they
    learned different models is checked.
    """
    for case in range(number):
        generator = np.random.default_rng([case, 99])
        found, learned = [], []
        asked: list[Request] = []
        for salt in (0.0, 4.0):
            toy = ToyFederation(home / f"{case}-{salt}", seed=case, fraction=fraction)
            toy.federation.recovery_rounds = 0
            asked = asked or random_requests(generator, toy.sizes)
            change(toy, asked, salt)
            strategy = make()
            arrays = toy.run(strategy, rounds=rounds)
            learned.append(named.digest(arrays))
            for one in asked:
                toy.federation.ledger.receive(one)
                arrays = toy.run(make(), arrays, rounds=0)
            assert all(toy.federation.ledger.state(one.id) == "fulfilled" for one in asked)
            found.append(named.digest(arrays))
        yield found[0], found[1]
