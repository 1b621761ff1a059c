"""A client: guards its data, runs the step it is asked for, and remembers what it must not use."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from flwr.client import NumPyClient
from torch import nn

from clients import steps
from clients.local import Chosen, Local, Outcome, Shard
from clients.multitask import NONE, MultiTask, accuracy_of, only_tasks, without_tasks
from clients.state import arrays_of, load_arrays
from clients.training import lone_examples, loss_of
from unlearning.arrays import Array, Arrays
from unlearning.errors import FederationError
from unlearning.models.array_model import ArrayModel
from unlearning.models.portions import travelling
from unlearning.protocol import EVERY, Settings, Wire, names_in, told_names
from unlearning.records.commitment import leaf, root
from unlearning.records.memory import ClientMemory
from unlearning.request import Omission
from unlearning.told import LEAST, SPLITS
from unlearning.weighing import Examples

__all__ = [
    "Holdings",
    "Keepsake",
    "Participant",
    "Work",
    "arrays_of",
    "keepsake_address",
    "keepsakes",
    "load_arrays",
]

LAST_LOCAL = "last_local"
_SMALL = 2**24  # bytes of examples that are rather kept than copied for every message
_KEEPSAKE = 1  # last part of the address of a keepsake's randomness

log = logging.getLogger("fedunlearn")

Config = dict[str, Any]  # Flower's scalars by name: what came with the message, or what goes back


@dataclass(frozen=True)
class Holdings:
    """What a client holds: its training data, its held-out data, and the model's architecture.

    Parameters
    ----------
    train, held_out : Shard
        Examples on the device the model is trained on. Positions in ``train`` never change:
        requests name them.
    fresh_model : callable
        ``fresh_model(seed)`` returns a newly initialised model on the same device.
    workbench : nn.Module
        A model to work on; its state is overwritten by every message, so clients of one process
        may share it.
    array_model : ArrayModel or None
        What is learned, where it is no network; ``workbench`` is then a stand-in.
    forgetting : Shard or None
        As ``train``, row by row: what a client that is to be forgotten helps to unlearn with; None:
        what it trained on.
    """

    train: Shard
    held_out: Shard
    fresh_model: Callable[[int], nn.Module]
    workbench: nn.Module
    array_model: ArrayModel | None = None
    forgetting: Shard | None = None


@dataclass(frozen=True)
class Work:
    """What one message asks of a client: a step, the model, and what the step may look at.

    Parameters
    ----------
    step : str
        Name of the step.
    given : Arrays
        The model as it came.
    local : Local
        The client's data.
    settings : mapping
        The step's own.
    address : list of int
        Of its randomness.
    config : dict
        All that came with the message.
    """

    step: str
    given: Arrays
    local: Local
    settings: Settings
    address: list[int]
    config: Config


@dataclass(frozen=True)
class Keepsake:
    """What a client made beside its training, and the seconds it took."""

    outcome: Outcome
    seconds: float


class Participant(NumPyClient):
    """One member of the federation.

    Parameters
    ----------
    client : int
        Stable client id.
    holdings : Holdings
        Data and model.
    memory : ClientMemory
        Where tombstones, the last local model and whatever else it made are kept.
    """

    def __init__(self, client: int, holdings: Holdings, memory: ClientMemory) -> None:
        self.client = client
        self.holdings = holdings
        self.memory = memory
        self._shown: tuple[Array, Shard] | None = None  # what of its data the last step saw
        self._parted: tuple[tuple[Omission, Omission], tuple[Array, ...]] | None = None

    def get_properties(self, config: Config) -> Config:
        """Say who this is and how many training examples it holds, and commit to them if asked.

        Of several tasks it says too which it has labels for, so that it is sent their heads alone.
        """
        found: Config = {Wire.CLIENT: self.client, Wire.NUM_EXAMPLES: len(self.holdings.train)}
        if isinstance(model := self.holdings.workbench, MultiTask):
            there = (self.holdings.train.labels != NONE).any(0).tolist()
            found[Wire.TASKS] = json.dumps(
                [t for t, has in zip(model.tasks, there, strict=True) if has]
            )
        if config.get(Wire.COMMIT):
            found[Wire.COMMITMENT] = root(self.leaves())
        return found

    def leaves(self) -> list[bytes]:
        """Return the salted hash of every training sample, in order; nobody else can make them."""
        x, y = self.holdings.train.features.cpu().numpy(), self.holdings.train.labels.cpu().numpy()
        salt = self.memory.salt
        return [leaf(salt, self.client, i, x[i], y[i]) for i in range(len(y))]

    def get_parameters(self, config: Config) -> list[Array]:
        """Return a freshly initialised model, seed ``config["seed"]`` (default 0)."""
        if self.holdings.array_model is not None:
            return list(self.holdings.array_model.initial().values())
        model = self.holdings.fresh_model(int(config.get("seed", 0)))
        return list(arrays_of(model).values())

    def fit(self, parameters: list[Array], config: Config) -> tuple[list[Array], int, Config]:
        """Run the step that ``config["step"]`` names, on data without anything forgotten.

        After the step ``train``, what ``config["keep"]`` names is made, with the model as it was
        sent, and kept; it changes nothing in the answer but the examples processed.

        Returns
        -------
        tuple
            Arrays in the order of ``metrics["array-names"]`` (JSON), the number of examples, and
            the step's metrics.
        """
        names = names_in(str(config[Wire.NAMES]))
        work = self.begun(dict(zip(names, parameters, strict=True)), config)
        return self.ended(work, self.ran(work))

    def begun(self, sent: Arrays, config: Config) -> Work:
        """Return what a message asks for, with the data that its step may look at."""
        extras = {
            name.removeprefix(Wire.EXTRA): array
            for name, array in sent.items()
            if name.startswith(Wire.EXTRA)
        }
        given = {n: a for n, a in sent.items() if not n.startswith(Wire.EXTRA)} if extras else sent
        step = str(config[Wire.STEP])
        return Work(
            step=step,
            given=given,
            local=self._local(config, extras, {} if steps.needs_model(step) else given),
            settings=cast(Settings, _loaded(config.get(Wire.SETTINGS))),
            address=json.loads(str(config[Wire.SEED])),
            config=config,
        )

    def ran(self, work: Work) -> Outcome:
        """Run a step; return what came of it, its arrays in any case."""
        outcome = self._run(work.step, work.given, work.local, work.settings, work.address)
        if outcome.arrays is not None:
            return outcome
        return replace(outcome, arrays=arrays_of(self.holdings.workbench))

    def makes(self, work: Work, name: str, how: Settings) -> Outcome:
        """Make a keepsake of training, with the model as it was sent."""
        return self._run(name, work.given, work.local, how, keepsake_address(work.address))

    def ended(
        self, work: Work, outcome: Outcome, made: Mapping[str, Keepsake] | None = None
    ) -> tuple[list[Array], int, Config]:
        """Remember what is to be remembered of a step that was run; return the answer to it.

        Keepsakes of training that are not among those ``made`` already are made now.
        """
        config, arrays = work.config, outcome.arrays or {}
        processed = outcome.examples_processed
        for name, (left, noted) in outcome.kept.items():
            self.memory.remember(name, left, noted)
        beside: dict[str, float] = {}
        if work.step == "train":
            facts = {"round": int(config.get(Wire.SERVER_ROUND, 0))}
            if config.get(Wire.REMEMBER):
                self.memory.remember(LAST_LOCAL, arrays, facts)
            for name, how in sorted(keepsakes(config).items()):
                kept = (made or {}).get(name) or self._made(work, name, how)
                if kept is None:
                    continue
                beside[f"{Wire.KEEP_EXAMPLES}{name}"] = kept.outcome.examples_processed
                beside[f"{Wire.KEEP_SECONDS}{name}"] = kept.seconds
                self.memory.remember(name, kept.outcome.arrays or {}, facts)
                processed += kept.outcome.examples_processed
            # Parts that it did not train stay here: the server has them as it sent them.
            rests = Examples.from_metrics(outcome.num_examples, outcome.metrics)
            arrays = travelling(arrays, work.given, rests)
        metrics: Config = {
            **outcome.metrics,
            **beside,
            Wire.EXAMPLES_PROCESSED: processed,
            Wire.NAMES: told_names(arrays),
        }
        return list(arrays.values()), outcome.num_examples, metrics

    def _made(self, work: Work, name: str, how: Settings) -> Keepsake | None:
        """Make a keepsake; None where that fails: the learning that all share must not."""
        begun = time.perf_counter()
        try:
            made = self.makes(work, name, how)
        except TimeoutError:
            raise
        except Exception as error:
            log.warning(
                "client %d cannot make %s, which one strategy needs: %s: %s",
                self.client, name, type(error).__name__, error,
            )  # fmt: skip
            return None
        return Keepsake(made, time.perf_counter() - begun)

    def _run(
        self, name: str, arrays: Arrays, local: Local, settings: Settings, address: list[int]
    ) -> Outcome:
        """Run a step on a model; its randomness comes from ``address`` alone."""
        step, model = steps.find(name), self.holdings.workbench
        if not steps.needs_model(name):  # nor what a network draws from
            generator = np.random.default_rng(address) if steps.draws(name) else None
            return step(None, local, settings, generator)
        load_arrays(model, arrays, in_parts=name == "train")
        devices = [model_device] if (model_device := _cuda_of(model)) is not None else []
        with torch.random.fork_rng(devices=devices):
            _seed_torch(int(np.random.SeedSequence(address).generate_state(1)[0]), devices)
            generator = np.random.default_rng(address)
            try:
                with lone_examples(model):
                    return step(model, local, settings, generator)
            finally:
                model.zero_grad(set_to_none=True)  # as large as the model, and of no use any more

    def evaluate(self, parameters: list[Array], config: Config) -> tuple[float, int, Config]:
        """Return the mean loss, number of examples and accuracy on the split ``split``.

        ``split`` is ``retain`` (default), ``forget`` or ``held-out``. An empty split answers
        0 examples. ``every`` answers for all of them with counts alone, and of a split with fewer
        than ten examples only that they are few: a sum over so few would tell of each.
        """
        names = names_in(str(config[Wire.NAMES]))
        arrays = dict(zip(names, parameters, strict=True))
        split = str(config.get(Wire.SPLIT, "retain")).replace("-", "_")
        local = self._local(config, {})
        if split == EVERY:
            return 0.0, 0, self._counts(arrays, local)
        if split not in ("retain", "forget", "held_out"):
            raise FederationError(f"unknown split {split!r} (known: retain, forget, held-out)")
        shard: Shard = getattr(local, split)
        if not len(shard):
            return 0.0, 0, {"accuracy": 0.0}
        logits = self._logits(arrays, shard)
        model = self.holdings.workbench
        loss = float(loss_of(model)(logits, shard.labels))
        return loss, len(shard), {"accuracy": accuracy_of(model, logits, shard.labels)}

    def _counts(self, arrays: Arrays, local: Local) -> Config:
        """Return examples and right answers of every split; of small ones only that they are."""
        found: Config = {}
        for split in SPLITS:
            shard: Shard = getattr(local, split)
            count = len(shard)
            few = 0 < count < LEAST
            right = 0
            if count and not few:
                right = int((self._logits(arrays, shard).argmax(1) == shard.labels).sum())
            found[f"{split}-examples"] = 0 if few else count
            found[f"{split}-right"] = right
            found[f"{split}-few"] = int(few)
        return found

    def _logits(self, arrays: Arrays, shard: Shard) -> torch.Tensor:
        """Return what the model says about some examples."""
        array_model = self.holdings.array_model
        if array_model is not None:
            probabilities = array_model.predict(arrays, shard.table()[0])
            tiny = np.finfo(np.float32).tiny
            logits = torch.from_numpy(np.log(np.maximum(probabilities, tiny)))
            return logits.to(shard.labels.device)
        model = self.holdings.workbench
        load_arrays(model, arrays)
        model.eval()
        with torch.inference_mode():
            return torch.cat([model(chunk) for chunk in torch.split(shard.features, 1024)])

    def delete(self, omission: Omission) -> Config:
        """Delete for good: write the tombstone, drop what was derived, and acknowledge."""
        self._shown = self._parted = None
        buried = self.memory.tombstones
        before = self._count(buried)
        self.memory.bury(omission)
        kept = self._count(self.memory.tombstones | omission)
        named = before if omission.features else len(self.holdings.train) - self._count(omission)
        return {
            Wire.CLIENT: self.client,
            Wire.NAMED_EXAMPLES: named,
            "deleted-examples": before - kept,
        }

    def _local(self, config: Config, extras: Arrays, arrays: Arrays | None = None) -> Local:
        """Split the training data by what is forgotten for good and what is being forgotten."""
        gone = self.memory.tombstones | _omission(config, Wire.OMIT)
        asked = _omission(config, Wire.FORGET)
        train = self.holdings.train
        there, kept, wanted = self._parts(gone, asked)
        wants = bool(config.get(Wire.REMEMBER)) and config.get(Wire.STEP) != "train"
        remembered = self.memory.recall(LAST_LOCAL) if wants else None
        given = train if self.holdings.forgetting is None else self.holdings.forgetting
        retain, forget = self._retained(kept), _take(given, wanted)
        if asked.features - gone.features:  # the examples stay; what is forgotten is their values
            forget, wanted = retain, kept
        retain = _blanked(retain, gone.features | asked.features)
        forget = _blanked(forget, gone.features)
        if isinstance(model := self.holdings.workbench, MultiTask):
            tasks = tuple(model.tasks)
            retain = without_tasks(retain, tasks, gone.tasks | asked.tasks)
            forget = without_tasks(forget, tasks, gone.tasks)
            if asked.tasks:
                forget = only_tasks(_take(train, there), tasks, asked.tasks - gone.tasks)
        return Local(
            retain=retain,
            forget=forget,
            held_out=self.holdings.held_out,
            fresh_model=self.holdings.fresh_model,
            positions=kept,
            forget_positions=wanted,
            arrays=arrays or {},
            extras=extras,
            remembered=remembered[0] if remembered else None,
            facts=remembered[1] if remembered else {},
            kept={
                name: found[0]
                for name in keepsakes(config)
                if (found := self.memory.recall(name)) is not None
            },
            recall=self.memory.recall,
        )

    def _parts(self, gone: Omission, asked: Omission) -> tuple[Array, ...]:
        """Return the positions that are there, that stay, and that go; kept for the next message.

        All messages of one request ask for the same ones.
        """
        if self._parted is None or self._parted[0] != (gone, asked):
            left = self._left(gone)
            stays = left if asked == Omission() else left & self._left(asked)
            found = tuple(np.flatnonzero(one) for one in (left, stays, left & ~stays))
            self._parted = (gone, asked), found
        return self._parted[1]

    def _retained(self, kept: Array) -> Shard:
        """Return what is left of the training set; small ones are kept for the next message."""
        train = self.holdings.train
        if len(kept) == len(train):
            return train
        if self._shown is None or not _is_same(self._shown[0], kept):
            self._shown = kept, _take(train, kept)
        found = self._shown[1]
        if train.features.nbytes > _SMALL:
            self._shown = None
        return found

    def _count(self, omission: Omission) -> int:
        """Return how many examples of the training set an omission leaves."""
        return int(self._left(omission).sum())

    def _left(self, omission: Omission) -> Array:
        """Return which examples of the training set an omission leaves, as a mask."""
        if omission == Omission():
            return np.ones(len(self.holdings.train), dtype=bool)
        labels = self.holdings.train.labels.cpu().numpy()
        keep = np.full(len(labels), not omission.everything)
        if omission.samples:
            keep[[i for i in omission.samples if i < len(labels)]] = False
        if omission.classes and labels.ndim > 1:
            raise FederationError("a client with several tasks cannot forget a class; name a task")
        if omission.classes:
            keep &= ~np.isin(labels, sorted(omission.classes))
        return keep


def keepsakes(config: Config) -> dict[str, Settings]:
    """Return what to make while training, or to have at hand: steps and their settings."""
    return _loaded(config.get(Wire.KEEP))


def keepsake_address(address: Sequence[int]) -> list[int]:
    """Return where a keepsake's randomness begins, from the address of the training it goes with.

    Whatever else is kept, it is made alike.
    """
    return [*address, 0, _KEEPSAKE]


def _omission(config: Config, key: str) -> Omission:
    return _omission_of(str(config.get(key, "{}")))


@lru_cache(maxsize=256)
def _omission_of(text: str) -> Omission:
    """Return an omission of its JSON: the same few come with every message."""
    return Omission.from_json(json.loads(text))


def _loaded(text: object) -> dict[str, Any]:
    """Return the JSON object of a text; None: an empty one."""
    return {} if text is None or text == "{}" else dict(_parsed(str(text)))


@lru_cache(maxsize=64)
def _parsed(text: str) -> dict[str, Any]:
    """Return the JSON object of a text; all clients of a round are sent the same few."""
    return dict(json.loads(text))


def _is_same(one: Array, other: Array) -> bool:
    return one is other or np.array_equal(one, other)


def _take(shard: Shard, positions: Array) -> Shard:
    if len(positions) == len(shard):
        return shard
    return Chosen(shard, positions)


def _blanked(shard: Shard, features: frozenset[int]) -> Shard:
    """Return examples with 0 for some of their values, counted over all axes of an example.

    Raises
    ------
    FederationError
        If an example has no such value.
    """
    if not features:
        return shard
    rows = shard.features.flatten(1).clone()
    if (last := max(features)) >= rows.shape[1]:
        raise FederationError(f"feature {last} is forgotten; an example has {rows.shape[1]} values")
    rows[:, sorted(features)] = 0
    return Shard(rows.view_as(shard.features), shard.labels)


def _seed_torch(seed: int, devices: list[torch.device]) -> None:
    """Seed the generators that a step may draw from.

    ``torch.manual_seed`` seeds every kind of accelerator, and formats the stack for each that is
    not there: milliseconds per message.
    """
    torch.default_generator.manual_seed(seed)
    for device in devices:
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _cuda_of(model: nn.Module) -> torch.device | None:
    first = next(model.parameters(), None)
    return first.device if first is not None and first.is_cuda else None
