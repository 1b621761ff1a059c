"""Settings: a TOML file or Flower's run-config becomes one frozen, checked :class:`Config`.

Every mistake is a one-line :class:`~unlearning.errors.ConfigError` that names the key, the value,
the reason and the remedy. The module imports neither PyTorch nor Flower, so that ``--help`` and a
wrong setting are answered at once.
"""

from __future__ import annotations

import codecs
import importlib
import inspect
import json
import os
import re
import shlex
import sys
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from experiments.config.schema import Config, alias_of
from unlearning.errors import ConfigError, unknown

__all__ = [
    "Config",
    "alias_of",
    "from_mapping",
    "from_run_config",
    "import_object",
    "load",
    "read_toml",
    "to_toml",
]

Raw = dict[str, Any]

_DOT = re.compile(r"""\.(?=(?:[^"]*"[^"]*")*[^"]*$)""")  # followed by an even number of quotes


def load(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Config:
    """Return the config that a TOML file and overrides describe.

    Parameters
    ----------
    path : path
        The file; one that is not there is also looked for beside the installed packages.
    overrides : iterable of str
        ``key.key=value``. The value is read as TOML and taken as text where it is none; an empty
        value removes the key. Numbers address list entries: ``requests.0.clients=[4]``. A part
        that holds a dot is quoted: ``options."my.module:Mine".rate=0.1``.

    Raises
    ------
    ConfigError
        If the file cannot be read or any setting is wrong.
    """
    return from_mapping(read_toml(path), str(path), overrides)


def from_run_config(run_config: Mapping[str, object]) -> Config:
    """Return the config that Flower's run-config describes.

    Parameters
    ----------
    run_config : mapping of str to bool, int, float or str
        Dotted keys (``train.learning-rate``; ``-`` and ``_`` are one); empty text means not given.
        ``requests`` is a JSON list. ``config`` names a TOML file that takes the place of all other
        keys, ``set`` holds space-separated overrides, which win over both. ``out`` is not a
        setting and passed over.

    Raises
    ------
    ConfigError
        If any setting is wrong.
    """
    given = {key: value for key, value in run_config.items() if value != "" and key != "out"}
    path, overrides = given.pop("config", None), given.pop("set", None)
    # A file stands for itself: defaults of the app, such as its marker, must not leak into it.
    raw = _nested(given) if path is None else read_toml(str(path))
    if overrides is not None:
        try:
            raw = _with_overrides(raw, shlex.split(str(overrides)))
        except ValueError as error:
            raise ConfigError(
                f"run-config: set = {_shown(overrides)} cannot be split ({error}); close the quote"
            ) from error
    return from_mapping(raw, "run-config" if path is None else str(path))


def from_mapping(
    raw: Mapping[str, Any], source: str = "config", overrides: Iterable[str] = ()
) -> Config:
    """Return the checked config of nested plain values.

    Parameters
    ----------
    raw : mapping
        As a TOML file holds it; changed by the overrides.
    source : str
        Where it came from; named in errors.
    overrides : iterable of str
        As for :func:`load`.

    Raises
    ------
    ConfigError
        If any setting is wrong.
    """
    try:
        return Config.model_validate(_with_overrides(dict(raw), overrides))
    except ValidationError as error:
        raise ConfigError(f"{source}: {_explain(error)}") from error


def to_toml(config: Config) -> str:
    """Return the config as TOML, defaults included; :func:`load` reads it back unchanged."""
    return tomli_w.dumps(config.to_dict())


def import_object(spec: str, kind: str) -> Any:
    """Return the object that ``module:name`` names.

    Parameters
    ----------
    spec : str
        ``module:name``; the working directory is searched too.
    kind : str
        What is looked up, for errors: ``"model"``.

    Raises
    ------
    ConfigError
        If the module or the name does not exist, or the module fails to import.
    """
    module_name, _, name = spec.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        # As `python -m` does; a console script starts without it.
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"{kind} {spec!r}: cannot import {module_name!r} ({error}); check its name and that it "
            "is installed or lies in the working directory"
        ) from error
    except ValueError as error:
        if not module_name:
            raise ConfigError(f"{kind} {spec!r} names no module; write module:name") from error
        raise _failed_import(spec, kind, error) from error
    except (Exception, SystemExit) as error:  # whatever a user's own module does
        raise _failed_import(spec, kind, error) from error
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            known = sorted(key for key in dir(found) if not key.startswith("_"))
            raise ConfigError(f"{kind} {spec!r}: {unknown('name', part, known)}") from error
    return found


def _failed_import(spec: str, kind: str, error: BaseException) -> ConfigError:
    module_name = spec.partition(":")[0]
    reason = " ".join(str(error).split()) or "no reason given"
    return ConfigError(
        f"{kind} {spec!r}: {module_name!r} fails when it is imported ({type(error).__name__}: "
        f"{reason}); correct it"
    )


def _text_of(path: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 if it begins with a byte order mark.

    Editors on Windows put such a mark in front of either; it is no part of the text.

    Raises
    ------
    OSError, UnicodeDecodeError
        If it cannot be read, or is no such text.
    """
    raw = path.read_bytes()
    marked = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return raw.decode("utf-16" if marked else "utf-8-sig")


def read_toml(path: str | os.PathLike[str], kind: str = "config") -> Raw:
    """Return what a TOML file holds; one beside the package where there is none of that name here.

    Parameters
    ----------
    path : str or path
        The file.
    kind : str, optional
        What it is, for messages.

    Raises
    ------
    ConfigError
        If it cannot be read or is no TOML.
    """
    wanted = Path(path)
    beside = Path(__file__).resolve().parents[2] / wanted
    found = beside if not wanted.exists() and beside.exists() else wanted
    what = f"{kind} {str(path)!r}"
    try:
        return tomllib.loads(_text_of(found))
    except FileNotFoundError as error:
        raise ConfigError(f"{what} does not exist; check the path") from error
    except OSError as error:
        raise ConfigError(
            f"{what} cannot be read ({error.strerror}); name a readable TOML file"
        ) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{what} is not TOML: byte {error.object[error.start]:#x} in line {line} is no UTF-8; "
            "save it as UTF-8"
        ) from error
    except tomllib.TOMLDecodeError as error:
        remedy = _remedy(_text_of(found), str(error))
        raise ConfigError(f"{what} is not TOML: {error}; {remedy}") from error


# Spaces, marks without a width, quotes and dashes as word processors set them.
_UNSEEN = {"Zs", "Zl", "Zp", "Cf", "Cc", "Pi", "Pf", "Pd", "Sm"}


def _remedy(text: str, error: str) -> str:
    """Return what to do about a line that is no TOML: an eye does not see every letter in it."""
    if "\0" in text:
        return "it holds zero bytes, as UTF-16 and UTF-32 do: save it as UTF-8"
    place = re.search(r"at line (\d+)", error)
    line = text.split("\n")[int(place[1]) - 1] if place else ""
    for letter in line:
        if letter not in "\t +-<=>|~" and unicodedata.category(letter) in _UNSEEN:
            name = unicodedata.name(letter, "a control character")
            return f"the line holds U+{ord(letter):04X} ({name.lower()}): type it anew"
    return "correct it"


def _with_overrides(raw: Raw, overrides: Iterable[str]) -> Raw:
    for override in overrides:
        key, found, text = override.partition("=")
        if not found or not key.strip():
            raise ConfigError(f"override {override!r} has no value; write key=value")
        _put(raw, key_parts(key), _value(text.strip()), key.strip(), remove=not text.strip())
    return raw


def key_parts(key: str) -> list[str]:
    """Return the parts of a dotted key; dots between quotes are no separators.

    >>> key_parts('options."my.module:Mine".rate')
    ['options', 'my.module:Mine', 'rate']
    """
    return [part.strip().strip('"') for part in _DOT.split(key)]


def _value(text: str) -> object:
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # Text with a line break could smuggle in a second key.
    return table["value"] if len(table) == 1 else text


def _put(raw: Raw, parts: Sequence[str], value: object, key: str, *, remove: bool = False) -> None:
    """Set (or remove) one nested key of ``raw`` in place."""
    here: Any = raw
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        if isinstance(here, list):
            if not part.isdigit() or int(part) > len(here):
                raise ConfigError(
                    f"override {key!r}: {part!r} is no entry of a list of {len(here)}; "
                    f"count from 0 to {len(here)}"
                )
            index: Any = int(part)
            if index == len(here):
                here.append([] if following and following.isdigit() else {})
        elif isinstance(here, dict):
            index = part
            if following is not None:
                here.setdefault(part, [] if following.isdigit() else {})
        else:
            raise ConfigError(
                f"override {key!r}: nothing lies below a plain value; shorten the key"
            )
        if following is not None:
            here = here[index]
        elif not remove:
            here[index] = value
        elif isinstance(here, list):
            del here[index]
        else:
            here.pop(index, None)


def _nested(flat: Mapping[str, object]) -> Raw:
    """Return the tables that dotted keys stand for."""
    raw: Raw = {}
    for key, value in flat.items():
        _put(raw, _plain_parts(key), value, key)
    text = raw.get("requests")
    if isinstance(text, str):
        try:
            raw["requests"] = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(
                f"run-config: requests = {_shown(text)} is not JSON ({error}); write a list such "
                'as [{"scope": "client", "clients": [3]}]'
            ) from error
    return raw


def _plain_parts(key: str) -> list[str]:
    """Return the parts of a run-config key in the spelling of the TOML file."""
    parts = key.split(".")
    plain = [part.replace("-", "_") for part in parts]
    if plain[0] == "options" and len(parts) > 2:
        plain[1] = parts[1]  # a strategy's alias, which is written with hyphens
    return plain


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _explain(error: ValidationError) -> str:
    """Return one line: key, value, reason and remedy of the first problem."""
    problems = error.errors(include_url=False, include_context=False)
    # A misspelt key often causes the problems that follow; it comes first.
    problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    key = ".".join(map(str, first["loc"]))
    reason = first["msg"].removeprefix("Value error, ")
    reason = reason.removeprefix("Input ").removeprefix("String ")
    if not key:
        return f"{reason}{more}"
    table, field = _place(first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{_unknown_key(str(first['loc'][-1]), key, table)}{more}"
    about = _about(field)
    if first["type"] == "missing":
        return f"{key} is missing; add it{about}{more}"
    if first["type"] == "model_type":
        return f"{key} = {_shown(first['input'])} should be a table; write [{key}]{more}"
    return f"{key} = {_shown(first['input'])} {reason}; correct it{about}{more}"


def _about(field: FieldInfo | None) -> str:
    if field is None or not field.description:
        return ""
    default = "" if field.is_required() or field.default in (None, {}, ()) else field.default
    ending = f"; default {default!r}" if default != "" else ""
    return f" ({field.description}{ending})"


def _place(location: tuple[int | str, ...]) -> tuple[type[BaseModel], FieldInfo | None]:
    """Return the table in which a location ends, and the field that it goes through last."""
    table: type[BaseModel] = Config
    field: FieldInfo | None = None
    for part in location:
        if isinstance(part, str) and part in table.model_fields:
            field = table.model_fields[part]
            table = _inner(field.annotation) or table
    return table, field


def _inner(annotation: object) -> type[BaseModel] | None:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _inner(arg))), None)


def _unknown_key(name: str, key: str, table: type[BaseModel]) -> str:
    """Return the sentence for an unknown key; one that belongs to another table is told so."""
    elsewhere = [
        f"{section}.{name}"
        for section, field in Config.model_fields.items()
        if (inner := _inner(field.annotation)) and name in inner.model_fields
    ]
    if table is not Config and name in Config.model_fields:
        elsewhere.insert(0, name)
    if elsewhere:
        return f"unknown key {key!r}; did you mean {elsewhere[0]!r}?"
    where = key.rpartition(".")[0]
    return unknown(f"key of [{where}]" if where else "key", name, table.model_fields)
