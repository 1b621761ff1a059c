from __future__ import annotations

import pytest

from experiments.federation import asking
from experiments.runs.folder import FederationFacts
from unlearning.errors import RequestError
from unlearning.request import Forgotten, Request, Scope

FACTS = FederationFacts(clients={0: 4, 1: 4}, classes=(0, 1))
LEAVE = [Request(Scope.CLIENT, clients=(client,), id=f"r{client}") for client in (0, 1)]


class Told:
    """Data of which only so much is known: who holds something, and how many may leave."""

    def __init__(self, holder: int, most: int) -> None:
        self.holder, self.most = holder, most

    def holds(self, request: Request) -> bool:
        return self.holder in request.leavers

    def leaves(self, forgotten: Forgotten) -> bool:
        return len(forgotten.clients) <= self.most


def test_requests_are_looked_at_one_after_the_other() -> None:
    asking.check(LEAVE[:1], FACTS, Told(0, 1))
    with pytest.raises(RequestError, match="no client holds such an example"):
        asking.check(LEAVE[:1], FACTS, Told(1, 1))
    with pytest.raises(RequestError, match="would leave no example to train on"):
        asking.check(LEAVE[:1], FACTS, Told(0, 0))


def test_what_is_not_known_here_is_not_held_against_a_request() -> None:
    asking.check(LEAVE[:1], FACTS, None)
    with pytest.raises(RequestError):  # but nobody is there twice
        asking.check([LEAVE[0], Request(Scope.CLIENT, clients=(0,), id="again")], FACTS, None)
