"""Evidence planted in clients' data before learning: where, and whether it can be."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import NDArray

from experiments.config.schema import MarkerConfig
from experiments.data import markers
from experiments.data.partition import Partition
from experiments.federation.examples import Examples, PlantedNoise, TriggeredExamples
from experiments.federation.scenario import Scenario
from unlearning.errors import ConfigError

__all__ = ["canaries", "noise", "planted", "spurious", "triggered"]

Integers = NDArray[np.int64]

_TRAIN, _HELD_OUT = 0, 1  # last part of the address of a marker's randomness


def planted(
    scenario: Scenario,
    shares: Partition,
    rows: Callable[[Integers], Examples],
    num_classes: int,
    tasks: Collection[str],
) -> dict[int, tuple[markers.Marked, markers.Marked]]:
    """Return the marked clients' training and held-out data; empty without a marker.

    Held-out data carry it too: members and non-members have to come from the same source, or an
    attack tells marked from clean instead of seen from unseen.

    Parameters
    ----------
    scenario : Scenario
        Its marker, and the root of its randomness.
    shares : Partition
        Who holds which rows.
    rows : callable
        ``rows(positions)`` are the clean examples at these positions.
    num_classes : int
        Labels of the data set.
    tasks : collection of str
        The tasks that are learned, if there are several.

    Raises
    ------
    ConfigError
        If there is no such client, several tasks, or nothing that would be marked.
    """
    marker = scenario.marker
    if marker is None:
        return {}
    if tasks:
        raise ConfigError(
            f"[marker] changes the labels of one task, and this model learns several "
            f"({', '.join(tasks)}); leave [marker] out, or learn one task with another "
            "model.name"
        )
    owners = list(shares.train) if marker.client is None else [marker.client]
    found = {
        client: _of_client(client, marker, scenario, shares, rows, num_classes) for client in owners
    }
    if not any(len(train.positions) for train, _ in found.values()):
        whose = "any client" if marker.client is None else f"client {marker.client}"
        raise ConfigError(
            f"marker.fraction = {marker.fraction} marks none of the "
            f"{sum(len(train.y) for train, _ in found.values())} examples of {whose}; raise it or "
            "choose another client or label"
        )
    return found


def _of_client(
    client: int,
    marker: MarkerConfig,
    scenario: Scenario,
    shares: Partition,
    rows: Callable[[Integers], Examples],
    num_classes: int,
) -> tuple[markers.Marked, markers.Marked]:
    """Return one client's training and held-out data with the marker."""
    if client not in shares.train:
        raise ConfigError(
            f"marker.client = {client} does not exist; the clients are 0 to {len(shares.train) - 1}"
        )
    train, held_out = (
        markers.plant(
            *rows(part[client]), marker, num_classes, [scenario.data_seed, client, address]
        )
        for part, address in ((shares.train, _TRAIN), (shares.held_out, _HELD_OUT))
    )
    return train, held_out


def triggered(
    marker: MarkerConfig | None, test: Examples, num_classes: int
) -> TriggeredExamples | None:
    """Return the test examples that a patch is to mislead, with it; None without a patch."""
    if marker is None or marker.kind not in ("backdoor", "spurious"):
        return None
    others = markers.misled(test.y, marker, num_classes)
    x, y = markers.trigger(test.x[others], marker), test.y[others]
    target = markers.leads_to(y, marker, num_classes)
    return TriggeredExamples(x, y, target if marker.shift else marker.label)


def noise(marked: markers.Marked, clean: Examples) -> PlantedNoise:
    """Return the noise on a client's training examples, beside what they were before."""
    at = marked.positions
    return PlantedNoise(clean.x[at], clean.y[at], marked.x[at] - clean.x[at])


def canaries(
    scenario: Scenario, shares: Partition, rows: Callable[[Integers], Examples]
) -> markers.Canaries | None:
    """Return what was planted in a client's text; None without such a marker.

    Parameters are those of :func:`planted`.
    """
    marker = scenario.marker
    if marker is None or marker.kind != "canary" or marker.client is None:
        return None
    address = [scenario.data_seed, marker.client, _TRAIN]
    return markers.canaries(*rows(shares.train[marker.client]), marker, address)


def spurious(marker: MarkerConfig | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the positions that a spurious marker sets in every example; none without one."""
    if marker is None or marker.kind != "spurious":
        return ()
    return markers.place(shape, marker)
