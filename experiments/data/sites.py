"""A site's own data: one file, folder or function that nobody else reads.

What the server declares (shape and number of classes) is checked here, at the site. Positions of
samples name rows, so the data are frozen: their digest is pinned when a site first takes part.
"""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.data import own
from experiments.data.dataset import scaled
from unlearning.errors import ConfigError
from unlearning.records.files import write_atomically

__all__ = ["EPOCH", "REMOTE", "Pin", "SiteData", "pin", "pinned", "read_site", "split_rows"]

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

REMOTE = "remote"  # data.name of a federation whose sites have data of their own
_PIN = "joined.json"
EPOCH = "epoch.json"  # counts a site's replacements of its data
_PICTURES = (".png",)
_ID = "id"  # the column of a table that holds the rows' own ids


@dataclass(frozen=True)
class SiteData:
    """All that a site holds.

    Parameters
    ----------
    x : array of float32, shape (n, ...)
        Examples.
    y : array of int64, shape (n,)
        Labels.
    ids : array of str, shape (n,), or None
        The rows' own ids. They never leave the site.
    columns : tuple of str
        What the columns of a table are called; () where they have no names.
    """

    x: Floats
    y: Integers
    ids: NDArray[np.str_] | None = None
    columns: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 over shapes, values and labels, hex."""
        state = hashlib.sha256(json.dumps([self.x.shape, self.y.shape]).encode())
        state.update(np.ascontiguousarray(self.x).tobytes())
        state.update(np.ascontiguousarray(self.y).tobytes())
        return state.hexdigest()


@dataclass(frozen=True)
class Pin:
    """What a site's positions rest on: kept at the site from its first joining on.

    Parameters
    ----------
    digest : str
        Of the data.
    rows : int
        How many there are.
    seed : int
        Root of the draw that holds rows out.
    held_out : float
        Share of the rows that is held out.
    epoch : int
        Counts how often the site has replaced its data.
    shape : tuple of int
        Of one example, as the federation declares it; () in notes from before this was kept.
    """

    digest: str
    rows: int
    seed: int
    held_out: float
    epoch: int = 1
    shape: tuple[int, ...] = ()


def read_site(
    source: str,
    shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    label: str | None = None,
    columns: tuple[str, ...] = (),
) -> SiteData:
    """Return a site's data, checked against what the server declares.

    Parameters
    ----------
    source : str
        An ``.npz`` with ``x``, ``y`` and perhaps ``id`` and ``columns``; a ``.csv`` with a header,
        whose column ``id``, if there is one, holds the rows' own ids and is no input; a folder
        ``CLASS/*.png`` whose classes are numbered in the order of their names, and whose ids are
        the files' names with their class, ``CLASS/NAME.png``; or ``module:function``, which returns
        ``(x, y)`` or ``(x, y, ids)``.
    shape : tuple of int, optional
        Of one example.
    classes : int, optional
        Number of labels.
    label : str, optional
        The column of a ``.csv`` that holds the labels.
    columns : tuple of str
        What the federation calls the columns; (): it does not say.

    Raises
    ------
    ConfigError
        If it cannot be read, or does not fit; names the row or the file.
    """
    path, where = Path(source).expanduser(), f"data {source!r}"
    if path.is_dir():
        found = _folder(path, shape, where)
    elif path.suffix == ".csv":
        found = _table(path, label, where)
    elif path.suffix == ".npz" or ":" not in source:
        found = _arrays(path, where)
    else:
        found = _function(source, where)
    _check(found, shape, classes, where)
    _check_columns(found, columns, where)
    return found


def split_rows(rows: int, seed: int, client: int, held_out: float) -> tuple[Integers, Integers]:
    """Return which rows of a site are trained on and which are held out, as a simulation draws.

    Examples
    --------
    >>> train, kept_back = split_rows(5, seed=0, client=0, held_out=0.2)
    >>> len(train), len(kept_back)
    (4, 1)
    """
    count = min(round(held_out * rows), rows - 1)
    order = np.random.default_rng([seed, client]).permutation(np.arange(rows))
    return np.sort(order[count:]), np.sort(order[:count])


def pinned(home: Path) -> Pin | None:
    """Return what a site joined with; None: it never has.

    Raises
    ------
    ConfigError
        If the note of it is damaged.
    """
    path = home / _PIN
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Pin(**{**found, "shape": tuple(found.get("shape", ()))})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged ({error}); restore it from a backup") from error


def pin(home: Path, data: SiteData, seed: int, held_out: float) -> Pin:
    """Keep what a site joins with, or refuse what is no longer the same.

    Raises
    ------
    ConfigError
        If the data, or the server's draw of the rows held out, differ from those it joined with.
    """
    known = pinned(home)
    replaced = home / EPOCH
    epoch = int(replaced.read_text(encoding="utf-8")) if replaced.exists() else 1
    now = Pin(data.digest, len(data.y), seed, held_out, epoch, data.x.shape[1:])
    if known is None:
        home.mkdir(parents=True, exist_ok=True)
        write_atomically(home / _PIN, json.dumps(asdict(now), indent=1).encode())
        return now
    if known.digest != now.digest:
        raise ConfigError(
            f"the data are not those this site joined with (now {now.rows} rows, digest "
            f"{now.digest[:12]}; then {known.rows} rows, {known.digest[:12]}), and positions name "
            "rows; put the old data back, or begin a new epoch with `fedunlearn site update-data`"
        )
    if (known.seed, known.held_out) != (seed, held_out):
        raise ConfigError(
            f"the server draws the held-out rows with data.seed = {seed} and data.held_out = "
            f"{held_out}, this site joined with {known.seed} and {known.held_out}; positions would "
            "name other rows: the server must keep both"
        )
    return known


def _arrays(path: Path, where: str) -> SiteData:
    found = own.plain_arrays(path, where)
    if missing := {"x", "y"} - found.keys():
        raise ConfigError(
            f"{where} has no array {min(missing)!r}; write it with numpy.savez(path, x=..., y=...)"
        )
    return _made(found["x"], found["y"], found.get("id"), where, found.get("columns"))


def _made(x: Any, y: Any, ids: Any, where: str, columns: Any = None) -> SiteData:
    return SiteData(
        scaled(own.examples(x, f"{where}, array 'x'")),
        own.labels(y, f"{where}, array 'y'"),
        None if ids is None else own.record_ids(ids, f"{where}, array 'id'"),
        () if columns is None else own.column_names(columns, f"{where}, array 'columns'"),
    )


def _function(source: str, where: str) -> SiteData:
    from experiments.config.loading import import_object

    function = import_object(source, "data set")
    try:
        x, y, *rest = function()
        (ids,) = rest or (None,)
    except ConfigError:
        raise
    except Exception as error:  # whatever a site's own function raises
        raise ConfigError(
            f"{where} failed or did not return (x, y) or (x, y, ids) ({type(error).__name__}: "
            f"{error}); correct it"
        ) from error
    return _made(x, y, ids, where)


def _table(path: Path, label: str | None, where: str) -> SiteData:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{where} cannot be read ({error}); check the path") from error
    head = [name.strip() for name in lines[0]] if lines else []
    if label is None or label not in head:
        raise ConfigError(
            f"{where}: the label column is {label!r}, the columns are {', '.join(head) or 'none'}; "
            "name one of them with --label"
        )
    at = head.index(label)
    by = head.index(_ID) if _ID in head and label != _ID else None
    x, y, ids = [], [], []
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(head):
            raise ConfigError(
                f"{where}, line {number}: {len(line)} values for {len(head)} columns; correct it"
            )
        try:
            y.append(int(line[at]))
            x.append([float(v) for place, v in enumerate(line) if place not in (at, by)])
        except ValueError as error:
            raise ConfigError(
                f"{where}, line {number}: {error}; give numbers, and whole numbers from 0 as labels"
            ) from error
        if by is not None:
            ids.append(line[by].strip())
    known = own.record_ids(np.array(ids, np.str_), f"{where}, column {_ID!r}") if ids else None
    names = tuple(name for place, name in enumerate(head) if place not in (at, by))
    rows = np.array(x, np.float32).reshape(len(x), -1)
    return SiteData(rows, np.array(y, np.int64), known, names)


def _folder(path: Path, shape: tuple[int, ...] | None, where: str) -> SiteData:
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import default_loader

    try:
        files = ImageFolder(str(path), loader=str, is_valid_file=_is_picture).samples
    except (FileNotFoundError, OSError) as error:
        raise ConfigError(
            f"{where} is no folder of pictures ({error}); lay it out as CLASS/*.png"
        ) from error
    grey = shape is not None and shape[0] == 1
    pictures = []
    for name, _ in files:
        try:
            picture = default_loader(name)
        except OSError as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{where}: {name} is no picture ({reason}); remove it") from error
        values = np.asarray(picture.convert("L") if grey else picture)
        pictures.append(values[None] if grey else values.transpose(2, 0, 1))
        if pictures[-1].shape != pictures[0].shape:
            raise ConfigError(
                f"{where}: {name} has shape {pictures[-1].shape}, {files[0][0]} has "
                f"{pictures[0].shape}; give all pictures one size"
            )
    ids = np.array([str(Path(name).relative_to(path)) for name, _ in files], np.str_)
    y = np.array([label for _, label in files], np.int64)
    return SiteData(scaled(np.stack(pictures)), y, ids)


def _is_picture(name: str) -> bool:
    return name.lower().endswith(_PICTURES)


def _check(found: SiteData, shape: tuple[int, ...] | None, classes: int | None, where: str) -> None:
    if len(found.x) != len(found.y):
        raise ConfigError(f"{where}: {len(found.x)} examples and {len(found.y)} labels")
    if found.ids is not None and len(found.ids) != len(found.y):
        raise ConfigError(f"{where}: {len(found.ids)} ids and {len(found.y)} labels")
    if len(found.y) < 2:
        raise ConfigError(f"{where} has {len(found.y)} rows; give two or more")
    if shape is not None and found.x.shape[1:] != shape:
        raise ConfigError(
            f"{where}: examples have shape {found.x.shape[1:]}, the federation declares {shape}"
        )
    finite = np.isfinite(found.x.reshape(len(found.x), -1)).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise ConfigError(
            f"{where}, row {row}: a value is missing or not finite in float32; fill or drop it"
        )
    most = classes if classes is not None else np.iinfo(np.int64).max
    odd = np.flatnonzero((found.y < 0) | (found.y >= most))
    if len(odd):
        top = "" if classes is None else f" to {classes - 1}"
        raise ConfigError(
            f"{where}, row {odd[0]}: label {found.y[odd[0]]} lies outside 0{top}; number the "
            "classes as the federation does"
        )


def _check_columns(found: SiteData, declared: tuple[str, ...], where: str) -> None:
    """Refuse names that a request could not go by, and those that are not the federation's."""
    names = found.columns
    if names and found.x.shape[1:] != (len(names),):
        raise ConfigError(
            f"{where}: {len(names)} names of columns for examples of shape {found.x.shape[1:]}; "
            "give one per column of a table"
        )
    if not (names and declared):
        return
    for place, (own_name, name) in enumerate(zip(names, declared, strict=True)):
        if own_name != name:
            raise ConfigError(
                f"{where}: column {place} is called {own_name!r}, the federation declares "
                f"{name!r}; put the columns into its order"
            )
