"""Settings given from Python: files, mappings and keyword arguments become one checked config."""

from __future__ import annotations

import copy
import inspect
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config import loading
from experiments.config.loading import Config
from unlearning.errors import ConfigError

__all__ = [
    "Source",
    "as_overrides",
    "call",
    "chosen",
    "count",
    "duration",
    "numbers",
    "place",
    "read",
    "spec",
    "words",
]

Source = Config | Mapping[str, Any] | str | os.PathLike[str]
Options = Mapping[str, Mapping[str, Any]]


def read(
    source: Source | None, overrides: Mapping[str, Any], options: Options | None = None
) -> Config:
    """Return the config of a file or mapping: :func:`experiments.api.calls.load_config`.

    Parameters
    ----------
    source : Config, mapping or path
        What is read.
    overrides : mapping
        Keys that win over it.
    options : mapping, optional
        Options by strategy, which win over both.

    Raises
    ------
    ConfigError
        If the file cannot be read or any setting is wrong.
    """
    changes = as_overrides(overrides)
    if options:
        changes += as_overrides({"options": dict(options)})
    if isinstance(source, (str, os.PathLike)):
        return loading.load(source, changes)
    if isinstance(source, Config):
        if not changes:
            return source
        source = source.to_dict()
    if not isinstance(source, Mapping | None):
        raise ConfigError(
            f"config is {source!r}, expected a mapping, a Config or the path of a TOML file"
        )
    return loading.from_mapping(_plain(dict(source or {})), "config", changes)


def as_overrides(values: Mapping[str, Any]) -> list[str]:
    """Return nested values as ``key.key=value``, the form that the command line takes.

    >>> as_overrides({"train": {"momentum": 0.9}, "data__limit": 50, "marker": None})
    ['train.momentum=0.9', 'data.limit=50', 'marker=']
    """
    found: list[str] = []
    for key, value in _plain(dict(values)).items():
        parts = key.split("__") if "__" in key.strip("_") else loading.key_parts(key)
        found += [
            f"{'.'.join(map(_quoted, at))}={_toml(leaf)}" for at, leaf in _leaves(value, parts)
        ]
    return found


def chosen(strategies: Any) -> tuple[tuple[str, ...] | None, dict[str, Mapping[str, Any]]]:
    """Return the names of strategies, and the options of those that were given any.

    Parameters
    ----------
    strategies : str, class, sequence of them, or mapping of them to options
        None: none are named.

    Raises
    ------
    ConfigError
        If one is neither a name nor a class.
    """
    if strategies is None:
        return None, {}
    if isinstance(strategies, str) or inspect.isclass(strategies):
        strategies = words(strategies) if isinstance(strategies, str) else [strategies]
    names = tuple(one if isinstance(one, str) else spec(one) for one in strategies)
    if not isinstance(strategies, Mapping):
        return names, {}
    given = dict(zip(names, strategies.values(), strict=True))
    return names, {name: options for name, options in given.items() if options}


def numbers(seeds: int | Sequence[int] | None) -> tuple[int, ...] | None:
    """Return seeds as a tuple; one may be given alone.

    Raises
    ------
    ConfigError
        If one is no whole number from 0.
    """
    if seeds is None:
        return None
    given: list[Any] = [seeds] if isinstance(seeds, (int, np.integer)) else list(seeds)
    for seed in given:
        if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or seed < 0:
            raise ConfigError(f"seeds hold {seed!r}; give whole numbers from 0")
    if not given:
        raise ConfigError("seeds are empty; name at least one, or leave them out")
    return tuple(map(int, given))


def place(value: object, name: str) -> Path:
    """Return an argument that names a file or a folder.

    Raises
    ------
    ConfigError
        If it is no path.
    """
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ConfigError(f"{name} is {value!r}; give a path")
    return Path(value)


def duration(value: Any, name: str) -> float:
    """Return an argument in seconds.

    Raises
    ------
    ConfigError
        If it is no finite number from 0.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        raise ConfigError(f"{name} is {value!r}; give seconds, a number from 0")
    return float(value)


def count(value: Any, name: str) -> int:
    """Return an argument that counts something.

    Raises
    ------
    ConfigError
        If it is no whole number from 1.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < 1:
        raise ConfigError(f"{name} is {value!r}; give a whole number from 1")
    return int(value)


def words(text: str | Sequence[str]) -> tuple[str, ...]:
    """Return names that were given as a sequence, or as text with commas between them."""
    parts = text.split(",") if isinstance(text, str) else text
    return tuple(word for part in parts if (word := part.strip()))


def spec(value: object) -> str:
    """Return ``module:name`` of a function or a class that can be imported from there.

    Raises
    ------
    ConfigError
        If it was made inside a function, or has no name.
    """
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None)
    if not module or not name or "<" in name:
        raise ConfigError(
            f"{value!r} has no name by which it can be imported; define it at the top of a module"
        )
    return f"{module}:{name}"


def call(function: str, *values: object, **named: object) -> str | None:
    """Return a call of a function of ``fedunlearn`` in words, for the report.

    None where a command is being carried out: the report names that, not what it calls.
    """
    click = sys.modules.get("click")
    if click is not None and click.get_current_context(silent=True) is not None:
        return None
    given = [*map(_shown, values), *(f"{k}={_shown(v)}" for k, v in named.items() if v is not None)]
    return f"fedunlearn.{function}({', '.join(given)})"


def _shown(value: object) -> str:
    if isinstance(value, Config):
        return "config"
    if inspect.isclass(value) or inspect.isfunction(value):
        return value.__qualname__
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_shown(k)}: {_shown(v)}' for k, v in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_shown, value))}]"
    return repr(os.fspath(value)) if isinstance(value, os.PathLike) else repr(value)


def _plain(value: Any) -> Any:
    """Return a value as TOML could hold it: paths as text, arrays as lists, functions by name."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, range)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if inspect.isfunction(value) or inspect.isclass(value):
        return spec(value)
    return copy.deepcopy(value)


def _leaves(value: Any, parts: Sequence[str]) -> Iterator[tuple[Sequence[str], Any]]:
    """Return the values below a key, each with the parts of its own."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, [*parts, key])
    else:
        yield parts, value


def _quoted(part: str) -> str:
    return f'"{part}"' if "." in part else part


def _toml(value: object) -> str:
    """Return a value as TOML on one line; nothing for None, which removes the key."""
    return "" if value is None else _inline(value)


def _inline(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, Mapping):
        items = (f"{_inline(key)} = {_inline(item)}" for key, item in value.items())
        return f"{{{', '.join(items)}}}"
    raise ConfigError(f"{value!r} cannot stand in a config; give text, numbers, lists or tables")
