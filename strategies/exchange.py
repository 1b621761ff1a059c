"""One exchange with the clients: messages out; replies read, checked, metered and combined."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import islice

import numpy as np
from flwr.app import ArrayRecord, Message, MessageType, MetricRecord

from strategies.federation import LEARN, RECOVER, UNLEARN, Federation, keeping
from strategies.handing import handed
from strategies.outgoing import Outgoing
from strategies.plausibility import of_one_kind, without_outliers
from strategies.roster import Roster
from strategies.wire import BadReplyError, num_bytes, reach, read_reply, to_content
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.cost import Cost
from unlearning.errors import FederationError
from unlearning.models.portions import Whose, parts_of
from unlearning.models.sequences import groups_in
from unlearning.models.shards import shard_of
from unlearning.protocol import Instruction, Reply, Scalar, Settings, Wire, part
from unlearning.request import Forgotten, Omission, Request

__all__ = [
    "LEARN",
    "RECOVER",
    "UNLEARN",
    "Exchange",
    "Hook",
    "check_model",
    "evaluation_messages",
    "faded",
    "mean_measures",
    "missing",
    "omissions",
]

log = logging.getLogger("fedunlearn")


_UNLEARN = 1  # last component of a seed address in unlearning rounds; learning rounds have none
_SLACK_S = 60.0  # of a client's clock beside ours
_LARGEST_LOSS = 1e6  # mean training loss in nats; beyond, and below 0, it says nothing
_NOTHING = json.dumps(Omission().to_json())
_NOTHING_LEFT = "holds no data any more"

Hook = Callable[[int, Arrays, Iterable[Reply]], Arrays]


@dataclass
class Exchange:
    """Whom the server asks in one round, about which model, and what comes back.

    Parameters
    ----------
    federation : Federation
        Settings, costs, and who has been forgotten.
    roster : Roster
        The clients behind the grid.
    asked : mapping of int to Instruction
        Who works, and how.
    arrays : Arrays
        The round's global model.
    number : int
        The round: of learning absolute, of unlearning from 1.
    phase : str
        ``learn``, ``unlearn`` or ``recover``: whose cost it is.
    who : str
        The strategy's name, for messages.
    keepsakes : mapping of str to mapping
        What clients must have at hand in steps that are no training, beside what all keep.
    request : Request or None
        What is being forgotten in this exchange.
    held : frozenset of str
        Requests whose answer is held back: the model still rests on their data.
    reuses : bool
        Whether the hook rests on recorded updates too, and can do without any reply.
    record : ArrayRecord or None
        The model as Flower's record, if there is one.
    losses : mapping of int to (float, int)
        Filled while replies are read: mean training loss in nats and examples, by client.
    """

    federation: Federation
    roster: Roster
    asked: Mapping[int, Instruction]
    arrays: Arrays
    number: int = 0
    phase: str = LEARN
    who: str = "the strategy"
    keepsakes: Mapping[str, Settings] = field(default_factory=dict)
    request: Request | None = None
    held: frozenset[str] = frozenset()
    reuses: bool = False
    record: ArrayRecord | None = None
    losses: dict[int, tuple[float, int]] = field(default_factory=dict)

    def messages(self) -> Iterator[Message]:
        """Yield one message per client, in order; the model is serialised once."""
        federation, unlearning = self.federation, self.phase == UNLEARN
        outgoing = Outgoing(self.arrays, self.record)
        absolute = federation.completed if unlearning else self.number
        defaults = dict(federation.train)
        if self.phase == RECOVER:
            defaults |= federation.recovery

        def place(client: int, instruction: Instruction) -> Settings:
            """Return what draws and shards of a client hang on, where there are any."""
            found: dict[str, Scalar] = {}
            if self._groups:
                found["shard"] = shard_of(client, self._groups)
            if defaults.get("stable_steps"):
                now = instruction.seed_round or self.number + unlearning * federation.completed
                found |= {"draw_seed": federation.seed, "draw_client": client, "draw_round": now}
            return found

        # Settings without anything of a client's own, by round and by what a step wants.
        plain: dict[tuple[int, int], str] = {}

        def settings(client: int, instruction: Instruction, kept: Settings) -> object:
            number = instruction.seed_round or self.number
            wanted = instruction.settings
            if own := {**kept, **place(client, instruction)}:
                return {**faded(defaults, number), **own, **wanted}
            if (which := (number, id(wanted))) not in plain:
                plain[which] = json.dumps({**faded(defaults, number), **wanted})
            return plain[which]

        is_first = self.request is None and not federation.forgotten.requests
        keepsakes = {
            True: json.dumps(dict(federation.keepsakes)),  # of training
            False: json.dumps(dict(self.keepsakes)),
        }
        for client, instruction in sorted(self.asked.items()):
            trains = instruction.step == "train"
            trains_again = unlearning and trains  # it leaves nothing behind at the client
            kept = {} if trains_again else federation.attribution(client, absolute)
            keeps = federation.keepsakes if trains else self.keepsakes
            remember = federation.remember and not trains_again
            # Who keeps a model, or makes something of it, must see all of it.
            cut = trains and not remember and (trains_again or not keeps)
            whose = self._whose(client) if cut else None
            facts = {
                **federation.client_config,
                Wire.CLIENT: client,
                Wire.STEP: instruction.step,
                Wire.SEED: self._address(client, instruction),
                Wire.SERVER_ROUND: absolute,
                Wire.REMEMBER: remember,
                Wire.KEEP: "{}" if trains_again else keepsakes[trains],
                Wire.SETTINGS: settings(client, instruction, kept),
                **(
                    {Wire.OMIT: _NOTHING}
                    if is_first
                    else omissions(federation.forgotten, client, self.request, self.held)
                ),
            }
            model = outgoing.record(instruction, whose)
            content = to_content(model, instruction.extras, facts)
            node = self.roster.nodes[client]
            yield Message(content, node, MessageType.TRAIN, group_id=str(absolute))

    def ask(self) -> Iterator[Reply]:
        """Send the messages and yield the checked replies, where Flower's loop does not."""
        sent = self.roster.send_and_receive(self.messages(), timeout=self.federation.timeout_s)
        return self.read(sent)

    def read(self, messages: Iterable[Message]) -> Iterator[Reply]:
        """Yield checked replies; quarantine bad ones by name; meter all of them.

        A large update is empty where :meth:`combine` holds all replies before a hook sees one: it
        is worked out for the hook.
        """
        federation, roster = self.federation, self.roster
        down = roster.bytes_down
        self.losses.clear()
        farthest: float | None = None  # of the model that all are sent
        for message in messages:
            client = roster.sender(message)
            instruction = self.asked[client]
            sent = self.arrays if instruction.arrays is None else instruction.arrays
            if farthest is None and sent is self.arrays and instruction.answers == "model":
                farthest = reach(sent)
            try:
                reply = read_reply(
                    message,
                    client,
                    sent,
                    model_like=instruction.answers == "model",
                    declared=roster.declared.get(client),
                    longest_s=2 * federation.timeout_s + _SLACK_S,
                    farthest=farthest if sent is self.arrays else None,
                    trains=self._trains(client, instruction),
                    later=self._are_held and federation.robust is None,
                )
            except BadReplyError as error:
                roster.lost[client] = f"quarantined: {error}"
                continue
            federation.spend(
                self.phase,
                Cost(
                    client_s=reply.metrics.get(Wire.CLIENT_SECONDS, 0.0),
                    examples=int(reply.metrics.get(Wire.EXAMPLES_PROCESSED, 0)),
                    bytes_up=num_bytes(part(message.content, Wire.ARRAYS, ArrayRecord) or {}),
                ),
            )
            if self.phase == LEARN:
                for name in federation.keepsakes:
                    federation.spend(keeping(name), _kept(reply, name))
            if reply.num_examples > (most := roster.capped.get(client, reply.num_examples)):
                reply = replace(reply, num_examples=most)
            if reply.num_examples == 0:
                roster.lost[client] = _NOTHING_LEFT
                continue
            if (loss := reply.metrics.get(Wire.LOSS)) is not None:
                if 0 <= loss <= _LARGEST_LOSS:
                    self.losses[client] = loss, reply.num_examples
                else:  # it would decide alone when learning is over
                    log.warning("client %d reports a loss of %g; it is not counted", client, loss)
            del message  # large: it would lie there while the next client works
            yield reply
            del reply
        spent = Cost(client_rounds=len(self.asked), bytes_down=roster.bytes_down - down)
        federation.spend(self.phase, spent)

    @cached_property
    def _groups(self) -> int:
        """Into how many groups the model cuts its clients; 0: it is one for all."""
        return groups_in(list(self.arrays))

    def _whose(self, client: int) -> Whose | None:
        """Return whose parts of the model a client trains; None: all are its own."""
        if self._groups:
            return shard_of(client, self._groups)
        if (tasks := self.roster.tasks.get(client)) is None:
            return None
        gone = self.federation.forgotten.omission(client).tasks
        return tasks - gone - (self.request.omission(client).tasks if self.request else set())

    def _trains(self, client: int, instruction: Instruction) -> frozenset[str] | None:
        """Return the parts that a client may train; None: it is free to train all there are."""
        whose = self._whose(client) if instruction.step == "train" else None
        return None if whose is None else parts_of(list(self.arrays), whose)

    def combine(self, hook: Hook, replies: Iterator[Reply], *, robust: bool = False) -> Arrays:
        """Let a hook combine replies, and see that enough of them are good.

        Where the federation wants it, and all of them trained one model, they are made harmless
        first. They are counted when the last has come, still inside the hook, so that a round with
        too few of them is not recorded either. Where nobody who was asked holds any data, the mean
        of no models is the model as it is; a hook that unlearns by answers of another kind is told
        that there are none, since parts of these clients may have to go.

        Raises
        ------
        FederationError
            If too few replies are valid, or what the hook makes of them is no finite model.
        """
        stream = self._counted(self._plausible(replies))
        if robust and self.federation.robust is not None:
            stream = self.federation.robust.cleaned(self.arrays, stream)
        first = list(islice(stream, 1))
        if first:
            stream = _again(first, stream)
        elif not self._is_idle:
            raise FederationError(self._too_few(0))
        elif (self.phase != UNLEARN or self._asks_models) and not self.reuses:
            log.info("round %d: nobody who was asked holds any data; nothing changes", self.number)
            return self.arrays
        current = hook(self.number, handed(self.arrays), stream)
        for _ in stream:  # a hook may stop early; what it left is still checked and counted
            pass
        like = self.arrays if self.federation.model is None else None
        current = check_model(current, like, f"the model of round {self.number}", self.who)
        if self.arrays.keys() != current.keys():
            return current
        return {name: current[name] for name in self.arrays}

    @property
    def _is_idle(self) -> bool:
        """Whether everyone who was asked answered that no data are there any more."""
        return self.roster.lost.keys() >= self.asked.keys() and not missing(self.roster.lost)

    @property
    def _asks_models(self) -> bool:
        return all(instruction.answers == "model" for instruction in self.asked.values())

    @property
    def _are_held(self) -> bool:
        """Whether replies are held until all of them are there, to be held against each other."""
        return self._asks_models and bool(self.federation.length_factor)

    def _address(self, client: int, instruction: Instruction) -> list[int]:
        """Return the address of a client's randomness."""
        seed = self.federation.seed
        if instruction.seed_round is not None:
            return [seed, instruction.seed_round, client]
        if self.phase == UNLEARN:
            return [seed, self.federation.completed + self.number, client, _UNLEARN]
        return [seed, self.number, client]

    def _plausible(self, replies: Iterator[Reply]) -> Iterator[Reply]:
        """Pass on the replies without those that stand out from the rest."""

        def leave_out(client: int, why: str) -> None:
            self.roster.lost[client] = why
            self.losses.pop(client, None)

        def step(client: int) -> str:
            return self.asked[client].step

        def sent(client: int) -> Arrays:
            own = self.asked[client].arrays
            return self.arrays if own is None else own

        if self._are_held:
            factor = self.federation.length_factor
            return without_outliers(replies, self.arrays, leave_out, step, factor, sent)
        if not self._asks_models:
            same_form = self.federation.model is not None  # others leave out what they do not have
            return of_one_kind(replies, leave_out, step, same_form=same_form)
        return replies

    def _counted(self, replies: Iterator[Reply]) -> Iterator[Reply]:
        valid = 0
        for reply in replies:
            valid += 1
            yield reply
            del reply  # large, and it would lie there while the next one is read
        lost = missing(self.roster.lost)
        for client, why in sorted(lost.items()):
            log.warning("round %d: client %d is left out: %s", self.number, client, why)
        idle = len(self.roster.lost) - len(lost)
        if valid < self.federation.min_replies * (len(self.asked) - idle):
            raise FederationError(self._too_few(valid))

    def _too_few(self, valid: int) -> str:
        lost = "; ".join(f"client {c}: {why}" for c, why in sorted(self.roster.lost.items())[:5])
        return (
            f"round {self.number}: {valid} of {len(self.asked)} clients gave a valid reply, "
            f"fewer than engine.min_replies allows ({lost or 'none was asked'})"
        )


def faded(settings: Settings, number: int) -> dict[str, Scalar]:
    """Return training settings as of a round: ``learning_rate`` times ``rate_decay``^(number - 1).

    Learning and recovery count on together, unlearning from 1, and a replayed round is as it was.
    FedOSD's released program calls the factor ``decay`` (.999 a round), in learning and unlearning.
    """
    found = dict(settings)
    decay = float(found.pop("rate_decay", 1.0))
    if decay != 1 and "learning_rate" in found:
        found["learning_rate"] = float(found["learning_rate"]) * decay ** (number - 1)
    return found


def missing(lost: Mapping[int, str]) -> dict[int, str]:
    """Return whose answer is missing or bad, and why; who holds no data has nothing to answer."""
    return {client: why for client, why in lost.items() if why != _NOTHING_LEFT}


def check_model(arrays: Arrays, like: Arrays | None, what: str, who: str) -> Arrays:
    """Return what a strategy gives back, or refuse it if it is no model to go on with.

    Parameters
    ----------
    arrays : Arrays
        What a hook returned.
    like : Arrays or None
        A model whose names, shapes and dtypes it must have; None: any will do.
    what, who : str
        The model and the strategy in words.

    Returns
    -------
    Arrays
        The model itself, or, where NumPy made numbers of arrays without axes, one of arrays.

    Raises
    ------
    FederationError
        If it is no mapping of names to numeric arrays, differs from ``like``, or is not finite.
    """
    found: object = arrays  # of a strategy of one's own, whatever its signature says
    if isinstance(found, Mapping) and any(isinstance(a, np.generic) for a in found.values()):
        found = arrays = {name: np.asarray(array) for name, array in found.items()}
    if not isinstance(found, Mapping) or not all(map(_is_numeric, found.values())):
        raise FederationError(
            f"{what} that {who} made is no mapping of names to numeric arrays; correct the hook"
        )
    if like is not None and (difference := named.mismatch(like, arrays)):
        raise FederationError(f"{who} returned a model whose {difference}")
    if not named.is_finite(arrays):
        raise FederationError(
            f"{what} is not finite and was discarded; lower the learning rate or the step of {who}"
        )
    return arrays


def omissions(
    forgotten: Forgotten,
    client: int,
    current: Request | None = None,
    held: frozenset[str] = frozenset(),
) -> dict[str, str]:
    """Return what a client must leave out: for good, and for the request being served.

    What a held request and this one both name is being forgotten now, not forgotten already.
    """
    if current is None:
        return {Wire.OMIT: _told(forgotten.omission(client))}
    asked, others = current.omission(client), forgotten.without(current.id)
    if held:
        kept_back = (r for r in others.requests if r.id in held)
        again = {r.id for r in kept_back if asked.covers(r.omission(client))}
        if again:
            others = Forgotten(tuple(r for r in others.requests if r.id not in again))
    return {Wire.OMIT: _told(others.omission(client)), Wire.FORGET: _told(asked)}


@lru_cache(maxsize=256)
def _told(omission: Omission) -> str:
    """Return an omission as it is sent: the same few go out in every round."""
    return json.dumps(omission.to_json())


def evaluation_messages(
    federation: Federation, roster: Roster, arrays: ArrayRecord
) -> Iterator[Message]:
    """Yield the question to every remaining client about a split of its data."""
    for client in roster.clients:
        facts = {
            **federation.client_config,
            Wire.CLIENT: client,
            Wire.SPLIT: federation.evaluate_split,
            **omissions(federation.forgotten, client),
        }
        content = to_content(arrays, {}, facts)
        yield Message(content, roster.nodes[client], MessageType.EVALUATE)


def mean_measures(replies: Iterable[Message]) -> MetricRecord | None:
    """Return the example-weighted means of what the clients measured; None: nobody did."""
    parts = [part(reply.content, Wire.METRICS, MetricRecord) for reply in replies]
    records = [record for record in parts if record is not None]
    weights = [float(str(record[Wire.NUM_EXAMPLES])) for record in records]
    if not sum(weights):
        return None
    return MetricRecord(
        {
            name: sum(w * float(str(r[name])) for w, r in zip(weights, records, strict=True))
            / sum(weights)
            for name in ("loss", "accuracy")
        }
    )


def _is_numeric(found: object) -> bool:
    return isinstance(found, np.ndarray) and found.dtype.kind in "biuf"


def _again(first: list[Reply], rest: Iterator[Reply]) -> Iterator[Reply]:
    """Yield what was taken before, which nobody else holds on to any more, and the rest."""
    while first:
        yield first.pop(0)
    yield from rest


def _kept(reply: Reply, name: str) -> Cost:
    """Return what a client says one keepsake cost; a part of what it says of all its work."""
    seconds, examples = (
        min(max(reply.metrics.get(f"{part}{name}", 0.0), 0.0), reply.metrics.get(whole, 0.0))
        for part, whole in (
            (Wire.KEEP_SECONDS, Wire.CLIENT_SECONDS),
            (Wire.KEEP_EXAMPLES, Wire.EXAMPLES_PROCESSED),
        )
    )
    return Cost(client_s=seconds, examples=int(examples))
