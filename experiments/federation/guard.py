"""The guard of a run: put together from ``[guard]``, the task and what the clients committed to.

It looks at requests before any work and at answers before anyone else does; what it says is
arithmetic of :mod:`unlearning.guards`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from experiments.config.schema import GuardConfig, MarkerConfig
from experiments.data import markers
from experiments.federation.task import Examples, Task
from strategies.robustness import Robust
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError, RequestError
from unlearning.fulfil import Inspection
from unlearning.guards import (
    bound_step,
    class_accuracies,
    class_falls,
    largest_fall,
    trigger_rates,
)
from unlearning.records.commitment import Commitment
from unlearning.request import Guarantee, Request

__all__ = ["Watchman", "canaries", "check_fits", "robust_of", "watchman_of"]

Floats = NDArray[np.float32]

_SIZES, _VALUES = (1, 2, 3, 4), (1.0, 2.0)  # of the known triggers
_ROUNDING = 1e-9  # differences of shares are off by the last bits
_SEED = 5  # of the draw of the canaries: the same in every run


def robust_of(guard: GuardConfig) -> Robust | None:
    """Return how updates are made harmless; None: they are taken as they come."""
    if guard.aggregate == "mean":
        return None
    return Robust(guard.aggregate, guard.trim, guard.norm_factor)


def watchman_of(
    guard: GuardConfig,
    task: Task,
    commitments: Mapping[int, Commitment],
    device: str = "cpu",
    told: Mapping[str, float] | None = None,
) -> Watchman | None:
    """Return the guard that the settings describe; None: nothing is to be guarded.

    ``told`` is what the ledger says of the best accuracies, where the run goes on.
    """
    looks = (guard.max_class_drop, guard.max_total_drop, guard.max_step, guard.max_trigger)
    if not (guard.commitment or guard.duplicates or any(limit is not None for limit in looks)):
        return None
    best = {int(label): float(value) for label, value in (told or {}).items()}
    return Watchman(guard, task, dict(commitments), device, best)


def check_fits(guard: GuardConfig, task: Task, requests: int | None) -> None:
    """Refuse what cannot work with this model or these requests.

    Parameters
    ----------
    guard : GuardConfig
        The settings.
    task : Task
        Data and model.
    requests : int or None
        How many are scheduled, where no more can come; None: more may.

    Raises
    ------
    ConfigError
        Naming the setting.
    """
    network = task.array_model is None and not task.tasks
    for key in ("max_class_drop", "max_total_drop", "max_step", "max_trigger"):
        if getattr(guard, key) is not None and not network:
            raise ConfigError(
                f"guard.{key} looks at a network with one task, model.name = "
                f"{task.scenario.model.name!r} is none; leave it out"
            )
    if guard.aggregate != "mean" and not network:
        raise ConfigError(
            f"guard.aggregate = {guard.aggregate!r} combines updates of a network with one task, "
            f"model.name = {task.scenario.model.name!r} has none; leave it at mean"
        )
    if requests is not None and guard.batch > requests:
        raise ConfigError(
            f"guard.batch = {guard.batch} but a comparison takes only the {requests} request(s) of "
            "the config; lower it"
        )
    if requests is not None and 0 < guard.max_requests < requests:
        raise ConfigError(
            f"guard.max_requests = {guard.max_requests} and a comparison answers all {requests} "
            "requests of the config at once; leave it out"
        )


def canaries(task: Task, share: float) -> tuple[Examples, Examples]:
    """Return the labelled examples that a guard looks at, and the other test examples.

    What judges a guard must not be what the guard has seen.
    """
    x, y = task.test_set()
    order = np.random.default_rng(_SEED).permutation(len(y))
    cut = max(1, round(share * len(y)))
    seen, rest = np.sort(order[:cut]), np.sort(order[cut:])
    return Examples(x[seen], y[seen]), Examples(x[rest], y[rest])


@dataclass
class Watchman:
    """Looks at requests and answers.

    Parameters
    ----------
    settings : GuardConfig
        What it looks at and where its limits lie.
    task : Task
        Gives the canaries and the model to try on them.
    commitments : mapping of int to Commitment
        What the clients committed themselves to; empty: nothing is known.
    device : str
        Where models are evaluated.
    best : mapping of int to float
        The best accuracy of every class on the canaries so far, those left out that were asked
        for; replaced, never changed, so that a copy goes its own way.
    """

    settings: GuardConfig
    task: Task
    commitments: Mapping[int, Commitment] = field(default_factory=dict)
    device: str = "cpu"
    best: Mapping[int, float] = field(default_factory=dict)

    @property
    def duplicates(self) -> bool:
        """Whether copies of the forgotten elsewhere are looked for."""
        return self.settings.duplicates

    def check(self, request: Request) -> None:
        """Refuse a request that names a client or a sample nobody committed to.

        Raises
        ------
        RequestError
            Naming the first.
        """
        if not self.settings.commitment:
            return
        for client in (*request.clients, *request.samples):
            if client not in self.commitments:
                raise RequestError(
                    f"client {client} committed itself to nothing when the run began (known: "
                    f"{', '.join(map(str, self.commitments))}); ask for one that took part"
                )
        for client, positions in request.samples.items():
            self.commitments[client].check_known(client, positions)

    def inspect(
        self, request: Request, guarantee: Guarantee, before: Arrays, after: Arrays
    ) -> Inspection:
        """Bound an approximate answer, and say why it must not be published, if so."""
        facts: dict[str, object] = {}
        reasons: list[str] = []
        limits = self.settings
        if limits.max_step is not None and guarantee is Guarantee.APPROXIMATE:
            after, share = bound_step(before, after, limits.max_step)
            facts["step"] = {"share": share, "limit": limits.max_step}
        if limits.max_class_drop is not None:
            facts["class_falls"], why = self._classes(request, before, after)
            reasons += why
        if limits.max_total_drop is not None:
            facts["class_bests"], why = self._totals(request, before, after)
            reasons += why
        if limits.max_trigger is not None:
            facts["triggers"], why = self._triggers(before, after)
            reasons += why
        return Inspection(after, tuple(reasons), facts)

    def _classes(
        self, request: Request, before: Arrays, after: Arrays
    ) -> tuple[dict[str, float], list[str]]:
        limit = self.settings.max_class_drop or 0.0
        seen, _ = canaries(self.task, self.settings.canaries)
        falls = class_falls(self._labels(before, seen.x), self._labels(after, seen.x), seen.y)
        label, fall = largest_fall(falls, request.classes)
        told = {str(one): round(found, 4) for one, found in falls.items()}
        if fall <= limit:
            return told, []
        return told, [
            f"it takes the accuracy of class {label} down by {fall:.2f} on the guard's examples, "
            f"more than guard.max_class_drop = {limit:g}"
        ]

    def _totals(
        self, request: Request, before: Arrays, after: Arrays
    ) -> tuple[dict[str, float], list[str]]:
        """Hold what many answers together take from a class, each of them little."""
        limit = self.settings.max_total_drop or 0.0
        seen, _ = canaries(self.task, self.settings.canaries)
        now, then = (
            class_accuracies(self._labels(arrays, seen.x), seen.y) for arrays in (before, after)
        )
        best = {label: max(value, self.best.get(label, 0.0)) for label, value in now.items()}
        falls = {label: value - then[label] for label, value in best.items()}
        label, fall = largest_fall(falls, request.classes)
        gone = request.classes if not request.clients else ()
        self.best = {one: value for one, value in best.items() if one not in gone}
        told = {str(one): round(value, 4) for one, value in self.best.items()}
        if fall <= limit + _ROUNDING:
            return told, []
        return told, [
            f"it leaves the accuracy of class {label} on the guard's examples {fall:.2f} below its "
            f"best so far, more than guard.max_total_drop = {limit:g}: what earlier answers took "
            "counts as well"
        ]

    def _triggers(self, before: Arrays, after: Arrays) -> tuple[dict[str, object], list[str]]:
        """Try every known trigger; what it did before already is no work of this answer."""
        limit = self.settings.max_trigger or 0.0
        seen, _ = canaries(self.task, self.settings.canaries)
        count = self.task.num_classes
        names: list[str] = []
        rates: list[NDArray[np.float64]] = []
        old: list[NDArray[np.float64]] = []
        for name, x in battery(seen.x):
            names.append(name)
            for model, into in ((before, old), (after, rates)):
                found = self._labels(model, x)[None]
                into.append(trigger_rates(found, seen.y, count)[0])
        rises = np.array(rates) - np.array(old)
        place, target = np.unravel_index(int(rises.argmax()), rises.shape)
        rate, was = float(rates[place][target]), float(old[place][target])
        told = {"trigger": names[place], "class": int(target), "rate": rate, "before": was}
        if rate - was <= limit:
            return told, []
        return told, [
            f"a known trigger ({names[place]}) now leads {rate:.2f} of the guard's examples of "
            f"other classes to class {int(target)}, {was:.2f} before: it rises by more than "
            f"guard.max_trigger = {limit:g}"
        ]

    def _labels(self, arrays: Arrays, x: Floats) -> NDArray[np.int64]:
        labels: NDArray[np.int64] = self.task.predict(arrays, x, self.device).argmax(1)
        return labels


def battery(x: Floats) -> list[tuple[str, Floats]]:
    """Return the examples under every known trigger that fits them, by name.

    Patches of several sizes and brightnesses in every corner of an image; in a table, at either
    end of a row.
    """
    found = []
    widest = min(x.shape[2:] or x.shape[1:])
    flips: list[tuple[str, tuple[int, ...]]] = [("last", ()), ("first", (x.ndim - 1,))]
    if x.ndim == 4:
        flips = [
            ("lower right", ()), ("lower left", (3,)), ("upper right", (2,)),
            ("upper left", (2, 3)),
        ]  # fmt: skip
    for size, value, (where, axes) in itertools.product(_SIZES, _VALUES, flips):
        if size * 2 >= widest:  # half an image is no trigger: it hides what is there
            continue
        marker = MarkerConfig(client=0, size=size, value=value)
        turned = np.flip(x, axes) if axes else x
        marked = markers.trigger(np.ascontiguousarray(turned), marker)
        patched = np.ascontiguousarray(np.flip(marked, axes) if axes else marked)
        found.append((f"{size} wide, {value:g}, {where}", patched))
    return found
