"""How the clients share the training data: the partitioners of ``flwr-datasets`` by their names.

They are imported in the first process that needs a new partition, and see the labels alone. The
resulting positions are kept in the cache folder, so that no other process and no later run pays
for the import, which takes 2.2 CPU seconds: as long as all else that a small run imports. Equal
shares at random (``iid``) are therefore dealt out here.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import inspect
import io
import json
import os
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.config.schema import DataConfig
from experiments.data.places import cache_folder
from unlearning.errors import ConfigError, unknown

__all__ = ["Partition", "names", "partition"]

Integers = NDArray[np.int64]

_BY_OWNER, _EQUAL = "natural-id", "iid"
# Ours to fill in: how many, by which column, with which seed.
_FILLED_IN = ("num_partitions", "partition_by", "seed")


@dataclass(frozen=True)
class Partition:
    """Positions in the training data, per client ``0 .. K - 1``, sorted.

    Parameters
    ----------
    train : mapping of int to array of int64
        What each client trains on.
    held_out : mapping of int to array of int64
        What each client never trains on, from the same source.
    """

    train: Mapping[int, Integers]
    held_out: Mapping[int, Integers]

    def among(self, positions: Integers) -> Partition:
        """Return the partition of all data whose examples at ``positions`` this one shares out.

        Examples
        --------
        Client 0 has the first and third of the examples 10, 20 and 30:

        >>> import numpy as np
        >>> share = Partition({0: np.array([0, 2])}, {0: np.array([1])})
        >>> found = share.among(np.array([10, 20, 30]))
        >>> found.train[0].tolist(), found.held_out[0].tolist()
        ([10, 30], [20])
        """
        return Partition(
            {client: positions[share] for client, share in self.train.items()},
            {client: positions[share] for client, share in self.held_out.items()},
        )


def names() -> dict[str, tuple[str, ...]]:
    """Return the partitioners by name, each with the parameters that the config may set."""
    return {
        name: tuple(key for key in _parameters(kind) if key not in _FILLED_IN)
        for name, kind in sorted(_partitioners().items())
    }


def partition(
    labels: Integers,
    owner: Integers | None,
    clients: int | None,
    name: str,
    params: Mapping[str, Any],
    seed: int,
    held_out: float,
) -> Partition:
    """Return who holds which training examples.

    Parameters
    ----------
    labels : array of int64, shape (n,)
        Labels of the training data.
    owner : array of int64, shape (n,), or None
        Natural owner of each example; with ``natural-id`` it is the client's id, so owners must
        be numbered from 0 without a gap.
    clients : int or None
        Number of clients; None: as many as the partitioner makes.
    name : str
        One of :func:`names`.
    params : mapping
        The partitioner's own parameters.
    seed : int
        Seed of the order of the data, of the partitioner and of the held-out sets.
    held_out : float
        Share of each client's examples, 0 to below 1, never trained on; at least one example
        stays for training.

    Raises
    ------
    ConfigError
        If the name or a parameter is unknown, the partitioner refuses, owners are no client ids,
        or a client has nothing.

    Examples
    --------
    Ten examples among two clients, a fifth of each kept back: four to train on and one not.

    >>> import numpy as np
    >>> found = partition(np.arange(10) % 2, None, 2, "iid", {}, seed=0, held_out=0.2)
    >>> [len(found.train[client]) for client in (0, 1)]
    [4, 4]
    >>> [len(found.held_out[client]) for client in (0, 1)]
    [1, 1]
    >>> shares = [*found.train.values(), *found.held_out.values()]
    >>> sorted(np.concatenate(shares).tolist())  # everything is somewhere, once
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    if name == _BY_OWNER and owner is not None:
        _check_owners(owner)
    if name == _EQUAL and clients is not None and clients <= len(labels) and not params:
        shares = _equal(len(labels), clients, seed)
    else:
        shares = _cached(labels, owner, clients, name, params, seed)
    if clients is not None and len(shares) != clients:
        raise ConfigError(
            f"data.clients = {clients}, but partitioner {name!r} makes {len(shares)} here; set "
            f"data.clients = {len(shares)} or change its parameters"
        )
    if empty := [client for client, share in enumerate(shares) if len(share) == 0]:
        raise ConfigError(
            f"client {empty[0]} gets no example from partitioner {name!r}; lower data.clients = "
            f"{len(shares)}, or change the partitioner's parameters or the seed"
        )
    return _without_held_out(shares, seed, held_out)


def _equal(count: int, clients: int, seed: int) -> list[Integers]:
    """Return what ``IidPartitioner`` makes of the shuffled data: as many for each, in turn."""
    return [np.sort(share) for share in np.array_split(_order(count, seed), clients)]


def _order(count: int, seed: int) -> Integers:
    """Return the order in which examples are dealt out; some partitioners keep that of the data."""
    return np.random.default_rng(seed).permutation(count)


def _without_held_out(shares: list[Integers], seed: int, held_out: float) -> Partition:
    """Return the shares with a part of each held out."""
    train, kept_back = {}, {}
    for client, share in enumerate(shares):
        count = min(round(held_out * len(share)), len(share) - 1)
        order = np.random.default_rng([seed, client]).permutation(share)
        kept_back[client], train[client] = np.sort(order[:count]), np.sort(order[count:])
    return Partition(train, kept_back)


def _check_owners(owner: Integers) -> None:
    """Refuse owners that would become clients of other numbers: a request would hit another."""
    known = np.unique(owner)
    odd = np.flatnonzero(known != np.arange(len(known)))
    if len(odd):
        raise ConfigError(
            f"data.partitioner = {_BY_OWNER!r}: owner {odd[0]} has no training example, and owner "
            f"{known[-1]} has, but owners are the ids of clients; number them from 0 without a "
            "gap, as numpy.unique(owner, return_inverse=True)[1] does, or raise data.limit if it "
            "left one out"
        )


def _cached(
    labels: Integers,
    owner: Integers | None,
    clients: int | None,
    name: str,
    params: Mapping[str, Any],
    seed: int,
) -> list[Integers]:
    version = importlib.metadata.version("flwr-datasets")
    settings = json.dumps([1, version, clients, name, dict(params), seed], sort_keys=True)
    state = hashlib.sha256(settings.encode())
    for column in (labels, owner):
        state.update(b"|" if column is None else np.ascontiguousarray(column).tobytes())
    path = cache_folder() / "partitions" / f"{state.hexdigest()}.npz"
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return np.split(file["positions"], file["starts"])
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # not there yet, or damaged: computed anew below
    shares = _compute(labels, owner, clients, name, params, seed)
    # A cache folder that cannot be written costs time, not the run.
    with contextlib.suppress(OSError):
        _write(path, shares)
    return shares


def _write(path: Path, shares: list[Integers]) -> None:
    """Write the positions whole or not at all; several processes may do it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    starts = np.cumsum([len(share) for share in shares])[:-1]
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".npz.tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, positions=np.concatenate(shares), starts=starts)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _compute(
    labels: Integers,
    owner: Integers | None,
    clients: int | None,
    name: str,
    params: Mapping[str, Any],
    seed: int,
) -> list[Integers]:
    kinds = _partitioners()
    if name not in kinds:
        raise ConfigError(f"data.partitioner: {unknown('partitioner', name, sorted(kinds))}")
    arguments = _arguments(kinds[name], name, owner, clients, params, seed)
    order = _order(len(labels), seed)
    columns = {"position": order, "label": labels[order]}
    if owner is not None:
        columns["owner"] = owner[order]

    import datasets

    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        # One of them draws its own progress bar on stderr.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            partitioner = kinds[name](**arguments)
            partitioner.dataset = datasets.Dataset.from_dict(columns)
            shares = [
                np.sort(np.asarray(part.with_format("numpy")["position"][:], dtype=np.int64))
                if len(part := partitioner.load_partition(client))
                else np.empty(0, np.int64)
                for client in range(partitioner.num_partitions)
            ]
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # Whatever a partitioner cannot do with these settings, it says in one of these ways.
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"data.partitioner: {name!r} with {_shown(arguments)} cannot share {len(labels)} "
            f"examples ({reason}); change its parameters or data.clients"
        ) from error
    finally:
        if not bars:
            datasets.enable_progress_bars()
    return shares


def _arguments(
    kind: type[Any],
    name: str,
    owner: Integers | None,
    clients: int | None,
    params: Mapping[str, Any],
    seed: int,
) -> dict[str, Any]:
    """Return what to call a partitioner with: the user's parameters and those we fill in."""
    known = _parameters(kind)
    open_keys = [key for key in known if key not in ("num_partitions", "seed")]
    for key in params:
        if key not in open_keys:
            known_keys = [*DataConfig.model_fields, *open_keys]
            raise ConfigError(f"[data]: {unknown(f'key for {name}', key, known_keys)}")
    natural = "natural-id" in name
    if natural and owner is None:
        raise ConfigError(
            f"data.partitioner = {name!r} needs data that say who owns each example; "
            "choose another, or give an array 'client' in npz:PATH"
        )
    if "num_partitions" in known and clients is None:
        raise ConfigError(f"data.clients is missing; partitioner {name!r} needs the number")
    filled = {
        "num_partitions": clients,
        "partition_by": "owner" if natural else "label",
        "seed": seed % 2**32,
    }
    given = {
        # A list of lists in a TOML file is a matrix.
        key: np.asarray(value) if isinstance(value, list) and "_array" in key else value
        for key, value in params.items()
    }
    arguments = {key: filled[key] for key in _FILLED_IN if key in known} | given
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in arguments:
            raise ConfigError(
                f"data.{key} is missing; partitioner {name!r} needs it beside data.partitioner"
            )
    return arguments


def _shown(arguments: Mapping[str, Any]) -> str:
    text = ", ".join(f"{key}={value}" for key, value in arguments.items())
    line = " ".join(text.split()) or "no parameters"
    return line if len(line) <= 160 else f"{line[:157]}..."


def _parameters(kind: type[Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(kind).parameters)


def _partitioners() -> dict[str, type[Any]]:
    """Return the partitioners that deal out examples and that plain values can describe."""
    # Nothing is fetched here; without these the import may ask the hub for news.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from flwr_datasets import partitioner

    found: dict[str, type[Any]] = {}
    for name, kind in vars(partitioner).items():
        if not inspect.isclass(kind) or not issubclass(kind, partitioner.Partitioner):
            continue
        # Vertical ones deal out columns; one that wants a function cannot be set in a file.
        wants_function = any("Callable" in str(p.annotation) for p in _parameters(kind).values())
        if inspect.isabstract(kind) or name.startswith("Vertical") or wants_function:
            continue
        found[_kebab(name.removesuffix("Partitioner"))] = kind
    return found


def _kebab(name: str) -> str:
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")
