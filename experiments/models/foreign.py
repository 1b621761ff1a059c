"""Models from elsewhere: files of safetensors, folders of Hugging Face, wrappers' names, halves.

A pickled ``.pt`` runs code of its maker when it is read, so it is never opened here; its owner gets
the lines with which to convert it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from unlearning.arrays import Array, Arrays, mismatch, not_finite, plain
from unlearning.errors import ConfigError
from unlearning.packing import PackingError, pack, unpack_file
from unlearning.records.files import write_atomically

__all__ = ["PICKLED", "convert", "fitted", "lines_for", "read_arrays"]

PICKLED = (".pt", ".pth", ".ckpt", ".bin", ".pkl")
_PREFIXES = ("module.", "_orig_mod.", "model.")  # DataParallel, torch.compile, Lightning
_INDEX = "model.safetensors.index.json"
_WHOLE = "model.safetensors"


def read_arrays(path: Path) -> Arrays:
    """Return the arrays of a safetensors file, or of a Hugging Face folder with all its shards.

    Half precision and bfloat16 become float32.

    Raises
    ------
    ConfigError
        If there is none, or it is pickled; the latter says how to convert it.
    """
    path = path.expanduser()
    if path.is_dir():
        files = _shards(path)
        if not files:
            raise ConfigError(f"folder {path} holds no *.safetensors; name one that does")
    else:
        files = [path]
    found: Arrays = {}
    for file in files:
        if file.suffix.lower() in PICKLED:
            raise ConfigError(
                f"{file} is pickled, and reading it would run whatever its maker put in; its owner "
                f"converts it: `fedunlearn convert {file} {file.with_suffix('.safetensors').name}` "
                "says how"
            )
        found |= _read(file)
    return found


def fitted(
    found: Mapping[str, Array],
    expected: Mapping[str, Array],
    rename: Callable[[Arrays], Arrays] | None = None,
) -> Arrays:
    """Return arrays under the names, in the order and of the types of a model.

    Prefixes that wrappers put before every name are taken away; where two names of the model share
    one array, as tied weights do, one of them is enough.

    Parameters
    ----------
    found : mapping
        As they were read.
    expected : mapping
        A fresh model.
    rename : callable, optional
        Gives the arrays of a module the names under which they travel.

    Raises
    ------
    ConfigError
        If they are another model's, or hold a value that is not finite.
    """
    arrays = _without_prefix(found, {plain(name) for name in expected})
    if rename is not None:
        arrays = rename(arrays)
    arrays |= {
        name: arrays[twin]
        for name in expected.keys() - arrays.keys()
        if (twin := _twin(name, expected, arrays)) is not None
    }
    arrays = {
        name: array.astype(expected[name].dtype)
        if name in expected
        and np.issubdtype(array.dtype, np.floating)
        and np.issubdtype(expected[name].dtype, np.floating)
        else array
        for name, array in arrays.items()
    }
    if difference := mismatch(expected, arrays):
        raise ConfigError(difference)
    # A constant of the architecture, such as a mask of -inf, is no sign of a broken model.
    own = {name: a for name, a in arrays.items() if not np.array_equal(a, expected[name])}
    if odd := not_finite(own):
        raise ConfigError(
            f"it holds a value in array {odd!r} that is not finite; take a model whose training "
            "did not diverge"
        )
    return {name: arrays[name] for name in expected}


def convert(source: Path, target: Path) -> Arrays:
    """Write a model from elsewhere as one safetensors file, and return its arrays.

    Raises
    ------
    ConfigError
        If it cannot be read, or there is a file at ``target`` already.
    """
    arrays = read_arrays(source)
    if target.exists():
        raise ConfigError(f"{target} is there already; give another name")
    prefix = _common_prefix(arrays)
    plain = {name.removeprefix(prefix): array for name, array in arrays.items()}
    write_atomically(target, pack(plain))
    return plain


def lines_for(source: Path, target: Path) -> str:
    """Return the Python lines with which the owner of a pickled file converts it."""
    return "\n".join(
        (
            f"# Reading {source.name} runs code that stands in it: do so only if it is your own.",
            "import torch",
            "from safetensors.torch import save_file",
            "",
            f'state = torch.load("{source}", map_location="cpu", weights_only=True)',
            'state = state.get("state_dict", state)  # as Lightning and others wrap it',
            "state = {name: array.clone().contiguous() for name, array in state.items()}",
            f'save_file(state, "{target}")',
        )
    )


def _shards(folder: Path) -> list[Path]:
    """Return the files of a folder: those its index names, the whole, or all there are."""
    index = folder / _INDEX
    if index.is_file():
        try:
            names = sorted({*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{index} cannot be read ({error}); download it again") from error
        return [folder / Path(str(name)).name for name in names]
    whole = folder / _WHOLE
    return [whole] if whole.is_file() else sorted(folder.glob("*.safetensors"))


def _read(file: Path) -> Arrays:
    try:
        found = unpack_file(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error}); name a safetensors file") from error
    except PackingError as error:
        found = _with_torch(file, error)
    return {n: a.astype(np.float32) if a.dtype == np.float16 else a for n, a in found.items()}


def _with_torch(file: Path, why: PackingError) -> Arrays:
    """Read a file with types that NumPy does not know, such as bfloat16."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(file)
    except (OSError, SafetensorError, KeyError) as error:
        raise ConfigError(f"{file} cannot be read ({why}); name a safetensors file") from error
    return {
        name: (tensor.to(torch.float32) if tensor.is_floating_point() else tensor).numpy()
        for name, tensor in found.items()
    }


def _without_prefix(found: Mapping[str, Array], known: set[str]) -> Arrays:
    arrays = dict(found)
    while not known.intersection(arrays):
        prefix = _common_prefix(arrays, one=True)
        if not prefix:
            break
        arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return arrays


def _common_prefix(arrays: Mapping[str, Array], *, one: bool = False) -> str:
    """Return what wrappers put before every name; with ``one`` the outermost wrapper's alone."""
    whole = ""
    names = list(arrays)
    while names:
        prefix = next((p for p in _PREFIXES if all(n.startswith(p) for n in names)), "")
        # A model may call its own part `model`; only what surely is a wrapper's goes unasked.
        if not prefix or (not one and prefix == "model."):
            break
        whole += prefix
        names = [name.removeprefix(prefix) for name in names]
        if one:
            break
    return whole


def _twin(name: str, expected: Mapping[str, Array], found: Mapping[str, Array]) -> str | None:
    """Return a name that was found whose array the model shares with ``name``."""
    mine = expected[name]
    if mine.size < 2 or (mine == mine.flat[0]).all():
        return None  # arrays that begin as a constant are equal without being one
    same = (
        other
        for other in found
        if other in expected and other != name and np.array_equal(expected[other], mine)
    )
    return next(same, None)
