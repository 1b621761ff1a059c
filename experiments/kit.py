"""The leaver's kit on disk: packs, examples and answers of models; all of it works offline."""

from __future__ import annotations

import secrets
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clients.sequences import is_sequential
from experiments.config.loading import Config
from experiments.models import networks as models
from unlearning import packing
from unlearning.arrays import digest
from unlearning.errors import ConfigError, FedUnlearnError
from unlearning.evaluation.marker_pack import MarkerPack, Reading, draw, read
from unlearning.packing import PackingError, metadata, unpack, unpack_file
from unlearning.records.files import write_atomically

__all__ = ["KitError", "make", "question", "read_model", "read_pack"]

Floats = NDArray[np.float32]

_FORMAT = "fedunlearn-marker-pack-2"
_UNCHECKED = "fedunlearn-marker-pack-1"  # written before packs had a checksum
_NUMBERS = ("num_classes", "templates", "count")
_CHUNK = 1024  # examples per forward pass
_OWNER_ONLY = 0o600


class KitError(FedUnlearnError):
    """A file of the kit is missing, damaged or does not fit."""


def make(
    data: Path, pack: Path, marked: Path, *, classes: int | None, count: int, templates: int
) -> MarkerPack:
    """Draw a pack for a client's examples, and write it and the examples to train on.

    Parameters
    ----------
    data : Path
        An ``.npz`` with the client's ``x`` (n, ...), floats as the model sees them, and ``y`` (n,).
    pack : Path
        The secret, readable by its owner alone; a file that is there is never overwritten.
    marked : Path
        An ``.npz`` with ``x`` and ``y``: the client's examples, then the marked ones.
    classes : int or None
        Number of classes; None: one more than the largest label.
    count, templates : int
        As :func:`unlearning.evaluation.marker_pack.draw`.

    Raises
    ------
    KitError
        If a file cannot be read, is there already, or the examples do not fit.
    """
    for path in (pack, marked):
        if path.exists():
            raise KitError(f"{path} is there already; a pack is never overwritten, name another")
    arrays = _read_npz(data)
    if missing := {"x", "y"} - arrays.keys():
        raise KitError(f"{data} has no array {sorted(missing)[0]!r}; it needs x and y")
    x, y = arrays["x"], arrays["y"]
    if not np.issubdtype(x.dtype, np.floating) or not np.issubdtype(y.dtype, np.integer):
        raise KitError(
            f"{data} holds x of {x.dtype} and y of {y.dtype}; x must be floats, scaled as the "
            "model sees them, and y integer labels"
        )
    if y.shape != x.shape[:1] or not len(y) or y.min() < 0:
        raise KitError(f"{data} holds x {x.shape} and y {y.shape}; need a label from 0 for each x")
    known = int(y.max()) + 1 if classes is None else classes
    if known <= int(y.max()):
        raise KitError(f"--classes {known} is too few: {data} has the label {int(y.max())}")
    seed = secrets.randbits(63)
    try:
        drawn = draw(x, known, seed=seed, count=count, templates=templates)
    except ValueError as error:
        raise KitError(f"no pack can be made for {data}: {error}") from error
    more_x, more_y = drawn.marked()
    np.savez(_opened(marked), x=np.concatenate([x, more_x.astype(x.dtype)]), y=np.append(y, more_y))
    _write_pack(pack, drawn)
    return drawn


def _write_pack(path: Path, drawn: MarkerPack) -> None:
    facts = {"format": _FORMAT, "seed": str(drawn.seed)}
    facts |= {name: str(getattr(drawn, name)) for name in _NUMBERS}
    facts["sha256"] = _checksum(drawn)
    write_atomically(path, packing.pack({"low": drawn.low, "high": drawn.high}, facts))
    path.chmod(_OWNER_ONLY)


def _checksum(found: MarkerPack) -> str:
    """Return the SHA-256 of everything that a pack says."""
    numbers = [found.seed, *(getattr(found, name) for name in _NUMBERS)]
    said = {"low": found.low, "high": found.high, "numbers": np.array([str(n) for n in numbers])}
    return digest(said)


def read_pack(path: Path) -> MarkerPack:
    """Return the pack that a file holds.

    Raises
    ------
    KitError
        If it holds none, or it is damaged.
    """
    try:
        raw = path.read_bytes()
        facts, arrays = metadata(raw), unpack(raw)
        if facts.get("format") not in (_FORMAT, _UNCHECKED):
            raise ValueError(f"its format is {facts.get('format')!r}")
        numbers = {name: int(facts[name]) for name in _NUMBERS}
        found = MarkerPack(int(facts["seed"]), arrays["low"], arrays["high"], **numbers)
        if facts["format"] == _FORMAT and facts["sha256"] != _checksum(found):
            raise ValueError("it was changed or damaged since it was written")
    except (OSError, KeyError, ValueError, OverflowError) as error:
        raise KitError(
            f"{path} is no marker pack ({error}); `fedunlearn kit make` makes one"
        ) from error
    return found


def question(pack: MarkerPack, answers: Path, config: Config | None) -> Reading:
    """Return what a model says to a pack's questions.

    Parameters
    ----------
    pack : MarkerPack
        Whose questions.
    answers : Path
        A model (``.safetensors``), which ``config`` says how to build; or an ``.npz`` with
        ``probabilities``, for a model that answers elsewhere.
    config : Config or None
        Needed for a model.

    Raises
    ------
    KitError
        If the file cannot be read or does not fit the pack.
    """
    if answers.suffix == ".npz":
        found = _read_npz(answers)
        if "probabilities" not in found:
            raise KitError(
                f"{answers} has no array 'probabilities'; see `fedunlearn kit questions`"
            )
        probabilities = found["probabilities"]
    else:
        if config is None:
            raise KitError(f"{answers} is a model; say with --config CONFIG how it is built")
        probabilities = read_model(pack, answers, config)
    try:
        return read(pack, probabilities)
    except ValueError as error:
        raise KitError(f"{answers} does not fit the pack: {error}") from error


def read_model(pack: MarkerPack, path: Path, config: Config) -> Floats:
    """Return a model's softmax outputs to the questions of a pack, ``(n, num_classes)``.

    Raises
    ------
    KitError
        If the file is no model of the config.
    """
    inputs, _ = pack.questions()
    chosen = config.model
    shape = tuple(pack.low.shape)
    try:
        arrays = unpack_file(path)
        flat = models.array_model(chosen.name, shape, pack.num_classes, chosen.params)
        if flat is not None:
            return flat.predict(arrays, inputs.reshape(len(inputs), -1)).astype(np.float32)
        network = models.build(chosen.name, shape, pack.num_classes, chosen.params)
        network = models.load(network, arrays).eval()
    except (OSError, PackingError) as error:
        raise KitError(f"{path} cannot be read ({error}); name a model file") from error
    except ConfigError:
        raise
    except FedUnlearnError as error:
        raise KitError(
            f"{path} is no model {chosen.name!r} for inputs of shape {shape} and "
            f"{pack.num_classes} classes: {error}"
        ) from error
    if is_sequential(network):
        raise KitError(
            f"model {chosen.name!r} reads text, and the kit's marks are patterns of numbers; plant "
            "a canary instead ([marker] kind = 'canary')"
        )
    with torch.inference_mode():
        chunks = torch.split(torch.from_numpy(inputs), _CHUNK)
        return torch.cat([network(chunk).softmax(1) for chunk in chunks]).numpy()


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise KitError(f"{path} is no file of plain arrays ({error})") from error


def _opened(path: Path) -> Path:
    """Return a path that NumPy leaves as it is: it adds the ending where there is another."""
    if path.suffix != ".npz":
        raise KitError(f"{path} must end in .npz")
    if not path.parent.is_dir():
        raise KitError(f"the folder {path.parent} does not exist; make it")
    return path
