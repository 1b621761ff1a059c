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
from clients.participant import Keepsake, Participant, Work, keepsake_address, keepsakes
from clients.stacked.jobs import Job
from clients.stacked.stack import STEPS, Stack, stack_of
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
            step = asked[0].work.step
            begun = time.perf_counter()
            jobs = [_job(one.work, one.work.address, one.work.settings) for one in asked]
            try:
                outcomes = stack.work(step, jobs, partial(_ran, asked))
            except Exception as error:  # one of them is at fault: alone, each answers for itself
                self._leave(len(asked), f"{type(error).__name__} in the stack")
                log.debug("a stack of %d clients failed", len(asked), exc_info=True)
                continue
            if why := stack.reason:
                self._leave(len(asked), why)
            else:
                self.stacked += len(asked)
            seconds = (time.perf_counter() - begun) / len(asked)
            made = _keepsakes(stack, asked) if step == "train" else {}
            for place, (one, outcome) in enumerate(zip(asked, outcomes, strict=True)):
                mine = {name: found[place] for name, found in made.items()}
                try:
                    begun = time.perf_counter()
                    answer = one.participant.ended(one.work, outcome, mine)
                    own = time.perf_counter() - begun + sum(kept.seconds for kept in mine.values())
                    replies[one.place] = trained(one.message, answer, seconds + own)
                except Exception:  # likewise
                    log.debug("a client of a stack failed", exc_info=True)
        return replies

    def _groups(self, pairs: Sequence[Pair]) -> list[tuple[Stack, list[_Asked]]]:
        """Return what can be trained side by side: the same network, the same settings."""
        found: dict[object, tuple[Stack, list[_Asked]]] = {}
        read: dict[int, Mapping[str, NDArray[Any]]] = {}  # a model that goes to many is read once
        for place, (message, context) in enumerate(pairs):
            if message.metadata.message_type != MessageType.TRAIN:
                continue
            config = config_of(message)
            record = part(message.content, Wire.ARRAYS, ArrayRecord)
            step = str(config.get(Wire.STEP))
            if step not in STEPS or record is None:
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
                if why := stack.refused(step):
                    self._leave(1, why)
                    continue
                if id(record) not in read:
                    read[id(record)] = arrays_in(record)
                work = participant.begun(dict(read[id(record)]), config)
            except Exception:  # the ClientApp says in words what is wrong
                continue
            asked = _Asked(place, message, participant, work)
            key = id(stack), step, str(config.get(Wire.KEEP)), _alike(work.settings)
            found.setdefault(key, (stack, []))[1].append(asked)
        return list(found.values())

    def _leave(self, count: int, why: str) -> None:
        self.alone += count
        self.reasons[why] += count


def _keepsakes(stack: Stack, asked: Sequence[_Asked]) -> dict[str, list[Keepsake]]:
    """Return the keepsakes of training that can be made side by side: one per client, by name."""
    found: dict[str, list[Keepsake]] = {}
    for name, how in keepsakes(asked[0].work.config).items():
        if name not in STEPS or stack.refused(name):
            continue
        begun = time.perf_counter()
        jobs = [_job(one.work, keepsake_address(one.work.address), how) for one in asked]
        try:
            made = stack.work(name, jobs, partial(_makes, asked, name, how))
        except Exception:  # alone, each says in words what is wrong
            log.debug("a stack of %d clients failed at %s", len(asked), name, exc_info=True)
            continue
        seconds = (time.perf_counter() - begun) / len(asked)
        found[name] = [Keepsake(outcome, seconds) for outcome in made]
    return found


def _ran(asked: Sequence[_Asked], place: int) -> Outcome:
    return asked[place].participant.ran(asked[place].work)


def _makes(asked: Sequence[_Asked], name: str, how: Settings, place: int) -> Outcome:
    return asked[place].participant.makes(asked[place].work, name, how)


def _job(work: Work, address: Sequence[int], settings: Settings) -> Job:
    return Job(work.given, work.local, tuple(address), settings)


def _alike(settings: Settings) -> tuple[tuple[str, object], ...]:
    """Return what clients side by side must have in common: all but whose draws they are."""
    return tuple(sorted((k, v) for k, v in settings.items() if k != "draw_client"))
