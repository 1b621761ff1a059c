"""Where a task's data come from: a data set that is shared out, or what is declared of the sites.

Of a federation whose sites have data of their own (``data.name = "remote"``) the server knows shape
and classes, who the members are, and a test file if it has one; it holds no row of anybody's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.config.schema import DataConfig, MarkerConfig
from experiments.data import datasets
from experiments.data.dataset import Dataset
from experiments.data.partition import Partition, partition
from experiments.data.sites import REMOTE, read_site
from unlearning.errors import ConfigError, unknown

__all__ = ["Sources", "declared", "shared_out"]

Integers = NDArray[np.int64]

_PUBLIC = 3  # last part of the address of the draw that sets public examples aside


@dataclass(frozen=True)
class Sources:
    """What a task is told of its data.

    Parameters
    ----------
    data : Dataset
        All rows; of remote sites none but the server's own test rows.
    public : array of int64
        Positions of the examples that the server trains on.
    shares : Partition
        Who holds which.
    """

    data: Dataset
    public: Integers
    shares: Partition


def shared_out(chosen: DataConfig, seed: int) -> Sources:
    """Return a data set and who gets what of it.

    Raises
    ------
    ConfigError
        If it cannot be read, or not shared out as asked.
    """
    for key in ("shape", "classes", "columns", "members", "rows", "test"):
        if getattr(chosen, key):
            raise ConfigError(f"data.{key} is for data.name = {REMOTE!r}; leave it out")
    found = datasets.of(chosen)
    public, shared = _set_aside(len(found.train_y), chosen.public, seed)
    owner = found.owner
    shares = partition(
        found.train_y[shared],
        None if owner is None else owner[shared],
        chosen.clients,
        chosen.partitioner,
        chosen.params,
        seed,
        chosen.held_out,
    ).among(shared)
    return Sources(found, public, shares)


def declared(chosen: DataConfig, marker: MarkerConfig | None) -> Sources:
    """Return what the server knows of sites with data of their own.

    Raises
    ------
    ConfigError
        If shape or classes are missing, or something is asked for that needs everyone's rows.
    """
    if not chosen.shape or chosen.classes is None:
        raise ConfigError(
            f"data.name = {REMOTE!r} needs data.shape, such as [64] or [1, 28, 28], and "
            "data.classes; declare both"
        )
    if chosen.classes < 2:
        raise ConfigError(f"data.classes = {chosen.classes}; declare two or more")
    if chosen.columns and list(chosen.shape) != [len(chosen.columns)]:
        raise ConfigError(
            f"data.columns has {len(chosen.columns)} names, and data.shape is "
            f"{list(chosen.shape)}; name every column of a table"
        )
    if len(set(chosen.columns)) < len(chosen.columns) or "" in chosen.columns:
        raise ConfigError("data.columns: give every column a name of its own")
    if marker is not None or chosen.public or chosen.tasks_per_client:
        what = "[marker]" if marker else "data.public" if chosen.public else "data.tasks_per_client"
        raise ConfigError(f"{what} needs rows at the server, and the sites keep theirs; leave out")
    if odd := next(iter(chosen.params), None):
        known = [*DataConfig.model_fields]
        raise ConfigError(f"[data]: {unknown('key', odd, known)}; the sites' data are not shared")
    members = chosen.members or tuple(range(chosen.clients or 0))
    if not members or len(set(members)) < len(members):
        raise ConfigError(f"data.members = {list(members)}; name each member once")
    if chosen.rows and len(chosen.rows) != len(members):
        raise ConfigError("data.rows has not one number for each of data.members; correct it")
    x, y = np.empty((0, *chosen.shape), np.float32), np.empty(0, np.int64)
    test = None
    if chosen.test is not None:
        path = str(Path(chosen.test).expanduser())
        test = read_site(path, tuple(chosen.shape), chosen.classes, columns=chosen.columns)
    data = Dataset(
        x,
        y,
        x if test is None else test.x,
        y if test is None else test.y,
        chosen.classes,
        REMOTE,
        columns=chosen.columns,
    )
    nothing = {member: np.empty(0, np.int64) for member in sorted(members)}
    return Sources(data, np.empty(0, np.int64), Partition(nothing, nothing))


def _set_aside(size: int, share: float, seed: int) -> tuple[Integers, Integers]:
    """Return which of ``size`` training examples are public, and which the clients share.

    The draw looks at no label: the server knows none.
    """
    count = round(share * size)
    if share and not 0 < count < size:
        raise ConfigError(
            f"data.public = {share} sets aside {count} of {size} training examples; choose a share "
            "that leaves some for the server and some for the clients"
        )
    order = np.random.default_rng([seed, 0, 0, _PUBLIC]).permutation(size)
    return np.sort(order[:count]), np.sort(order[count:])
