"""Train messages of many clients answered in one go, where their networks can be stacked.

Each client is still a :class:`~clients.participant.Participant` that guards its own data; only the
steps of SGD in between are taken for all of them at once. What cannot be answered so is left to the
ClientApp, one message after the other.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flwr.app import ArrayRecord, Context, Message, MessageType
from numpy.typing import NDArray

from clients.app import MakeParticipant, arrays_in, config_of, trained
from clients.local import Outcome
from clients.participant import Participant, Work
from clients.stacked import Job, Stack, stack_of
from unlearning.protocol import Settings, Wire, part

__all__ = ["Together"]

log = logging.getLogger("fedunlearn")

Pair = tuple[Message, Context]


@dataclass(frozen=True)
class _Asked:
    """A message that asks a client to train."""

    place: int
    message: Message
    participant: Participant
    work: Work


@dataclass
class Together:
    """Answers what it can of several messages at once.

    Parameters
    ----------
    make_participant : callable
        As that of the ClientApp.
    stacked, alone : int
        Messages that were answered in a stack; requests to train that were not.
    reasons : Counter
        Why not, in words, and how often.
    """

    make_participant: MakeParticipant
    stacked: int = 0
    alone: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def answers(self, pairs: Sequence[Pair]) -> list[Message | None]:
        """Return a reply to every message, in order; None: it has to be answered on its own."""
        replies: list[Message | None] = [None] * len(pairs)
        for stack, asked in self._groups(pairs):
            begun, before = time.perf_counter(), stack.trained
            jobs = [_job(one.work) for one in asked]
            try:
                outcomes = stack.train(jobs, partial(_alone, asked))
            except Exception as error:  # one of them is at fault: alone, each answers for itself
                self._leave(len(asked), f"{type(error).__name__} in the stack")
                log.debug("a stack of %d clients failed", len(asked), exc_info=True)
                continue
            seconds = (time.perf_counter() - begun) / len(asked)
            for one, outcome in zip(asked, outcomes, strict=True):
                try:
                    answer = one.participant.ended(one.work, outcome)
                    replies[one.place] = trained(one.message, answer, seconds)
                except Exception:  # likewise
                    log.debug("a client of a stack failed", exc_info=True)
            done = stack.trained - before
            self.stacked += done
            if done < len(asked):
                self._leave(len(asked) - done, stack.reason)
        return replies

    def _groups(self, pairs: Sequence[Pair]) -> list[tuple[Stack, list[_Asked]]]:
        """Return what can be trained side by side: the same network, the same settings."""
        found: dict[tuple[int, object], tuple[Stack, list[_Asked]]] = {}
        read: dict[int, Mapping[str, NDArray[Any]]] = {}  # a model that goes to many is read once
        for place, (message, context) in enumerate(pairs):
            if message.metadata.message_type != MessageType.TRAIN:
                continue
            config = config_of(message)
            record = part(message.content, Wire.ARRAYS, ArrayRecord)
            if config.get(Wire.STEP) != "train" or record is None:
                continue
            if any(name.startswith(Wire.EXTRA) for name in record):
                self._leave(1, "arrays came beside the model")
                continue
            try:
                participant = self.make_participant(context, config)
                stack = stack_of(participant.holdings.workbench)
                if type(participant).fit is not Participant.fit:
                    self._leave(1, "the client has a fit of its own")
                    continue
                if stack.refused:
                    self._leave(1, stack.refused)
                    continue
                if id(record) not in read:
                    read[id(record)] = arrays_in(record)
                work = participant.begun(dict(read[id(record)]), config)
            except Exception:  # the ClientApp says in words what is wrong
                continue
            asked = _Asked(place, message, participant, work)
            key = id(stack), _alike(work.settings)
            found.setdefault(key, (stack, []))[1].append(asked)
        return list(found.values())

    def _leave(self, count: int, why: str) -> None:
        self.alone += count
        self.reasons[why] += count


def _job(work: Work) -> Job:
    return Job(work.given, work.local, tuple(work.address), work.settings)


def _alike(settings: Settings) -> tuple[tuple[str, object], ...]:
    """Return what clients side by side must have in common: all but whose draws they are."""
    return tuple(sorted((k, v) for k, v in settings.items() if k != "draw_client"))


def _alone(asked: Sequence[_Asked], place: int) -> Outcome:
    return asked[place].participant.ran(asked[place].work)
