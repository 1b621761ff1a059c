"""Pages made from the code: config keys, strategies, the Python API, the commands.

Nothing is listed by hand; what has no description fails a test. Papers are set by
sphinxcontrib-bibtex. Commands and keys are not left to a library: sphinxcontrib-typer 0.7 brings
typer-slim, whose files overwrite those of the typer that Flower pins, and autodoc-pydantic tells of
Python classes where a reader writes TOML tables.
"""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from experiments.benchmarks.defaults import read, tallied
from experiments.benchmarks.rows import RESULTS
from experiments.reporting.measured import PLAIN_RETRAINING, measured

__all__ = [
    "command_page",
    "config_page",
    "python_page",
    "strategy_page",
    "write_all",
    "write_leaderboard",
]

_HERE = Path(__file__).parent
_PAPERS = _HERE.parent / "experiments" / "results" / "papers.md"
_DOUBTFUL = ("could not be verified", "abstract", "notes of others")
_NOTATION = (
    "`w`: the model; `D_k`: what client `k` made of it, less `w`; `n_k`: its examples; `u`: what "
    "is to be forgotten; `r`: the rest; `z`: logits."
)
_PAPER_LIST = """# Every paper

What the strategies and models rest on, from the references of their own pages. As a file:
`fedunlearn list strategies --bibtex`.

```{bibliography}
:all:
```
"""
_PARTS = {  # of the goal that defaults are held against, and how missing it is told
    "backdoor": "what is left of the backdoor, at worst {far} above retraining's",
    "accuracy": "accuracy on the retained, at worst {far} below retraining's",
    "examples": "what it costs, at worst {far} of retraining's examples",
}
_KEY = re.compile(r"^@\w+{(.+),$", re.MULTILINE)
_TITLE = re.compile(r"^  title = {(.+)},$", re.MULTILINE)
_ROLE = re.compile(r":\w+:`~?([^`]+)`")
_SECTION = re.compile(r"^(?P<title>[A-Z][A-Za-z ]+)\n-{3,}\n", re.MULTILINE)
_ITEMS = ("Parameters", "Returns", "Raises", "Yields", "Attributes")


def write_all(folder: Path) -> None:
    """Write every page into a folder; what is there and equal stays untouched."""
    pages = {
        "config.md": config_page(),
        "python.md": python_page(),
        "commands.md": command_page(),
        "papers.md": _PAPER_LIST,
        "papers.bib": "\n\n".join(papers().values()),
        **{f"strategies/{name}.md": page for name, page in strategy_pages()},
    }
    names = sorted(Path(name).stem for name in pages if name.startswith("strategies/"))
    pages["strategies.md"] = _strategy_list(names)
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


# --- config ---------------------------------------------------------------------------------------


def write_leaderboard(folder: Path) -> None:
    """Write the page over the recorded comparisons, as ``fedunlearn leaderboard`` does."""
    import experiments
    from experiments.reporting.leaderboard import leaderboard

    recorded = Path(experiments.__file__).parent / "results" / "leaderboard.toml"
    leaderboard([recorded], folder / "leaderboard.html")


def keys(table: type[BaseModel], above: str = "") -> Iterator[tuple[str, type[BaseModel], str]]:
    """Yield (dotted table, its model, its name on the page) of every table, the top one first."""
    yield above, table, above
    for name, field in table.model_fields.items():
        inner = _inner(field.annotation)
        if inner is not None:
            yield from keys(inner, f"{above}.{name}" if above else name)


def config_page() -> str:
    """Return the reference of every key of a config, with type, default and meaning."""
    from experiments.config.schema import Config, OwnRecovery

    lines = ["# Every key of a config", ""]
    lines += ["A config is a TOML file; a key that is left out has its default.", ""]
    tables = [(place, table) for place, table, _ in keys(Config)]
    tables.append(("options.<strategy>.recovery", OwnRecovery))
    for place, table in tables:
        many = place == "requests"
        heading = f"`[[{place}]]`" if many else f"`[{place}]`" if place else "At the top"
        lines += [f"## {heading}", "", _markdown(inspect.getdoc(table) or ""), ""]
        # The meaning beside the key: a phone shows two columns.
        lines += ["| key | meaning | type | default |", "| --- | --- | --- | --- |"]
        for name, field in table.model_fields.items():
            if _inner(field.annotation) is not None:
                sub = f"{place}.{name}" if place else name
                lines.append(f"| `{name}` | see `{sub}` below | table | |")
            else:
                lines.append(
                    f"| `{name}` | {field.description} | {_type(field)} | {_default(field)} |"
                )
        lines.append("")
    return "\n".join(lines)


def _inner(annotation: object) -> type[BaseModel] | None:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _inner(arg))), None)


def _type(field: FieldInfo) -> str:
    text = _plain_type(field.annotation)
    limits = []
    for entry in field.metadata:
        for sign, name in ((">=", "ge"), (">", "gt"), ("<=", "le"), ("<", "lt")):
            if (value := getattr(entry, name, None)) is not None:
                limits.append(f"{sign} {value}")
    return f"{text}{' ' if limits else ''}{', '.join(limits)}".replace("|", "\\|")


def _plain_type(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (Union, UnionType):
        parts = [_plain_type(arg) for arg in get_args(annotation) if arg is not type(None)]
        return " or ".join(dict.fromkeys(parts))
    if origin is Annotated:
        return _plain_type(get_args(annotation)[0])
    if origin in (tuple, list):
        return "list"
    if origin is dict or annotation is dict:
        return "table"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default in (None, (), {}, PydanticUndefined):
        return "none"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


# --- strategies -----------------------------------------------------------------------------------


def strategy_pages() -> Iterator[tuple[str, str]]:
    """Yield the name and the page of every strategy."""
    from strategies.registry import strategies

    for name in strategies():
        yield name, strategy_page(name)


def strategy_page(name: str) -> str:
    """Return the page of a strategy: facts, paper, what its docstring says, its options."""
    from strategies.registry import describe, strategies

    cls = strategies()[name]
    (found,) = (entry for entry in describe() if entry.alias == name)
    module = inspect.getmodule(cls)
    yes = "yes, while it is asked to help" if found.asks_forgotten else "no"
    facts = {
        "family": found.family,
        "serves requests for": ", ".join(found.scopes),
        "works on": ", ".join(found.models),
        "claims": f"{found.guarantee} ([what that means](/concepts.md#what-a-result-claims))",
        "needs kept while learning": ", ".join(found.needs) or "nothing",
        "needs the leaver": yes,
        "in a config": f'`strategy = "{name}"`',
        "source": f"`{cls.__module__}`",
    }
    lines = [f"# {name}", "", _markdown(inspect.getdoc(module) or "", 2), ""]
    lines += _cited(name)
    lines += ["| fact | value |", "| --- | --- |"]
    lines += [f"| {key} | {value} |" for key, value in facts.items()]
    lines += _beside(name)
    lines += ["", "## The class", "", _markdown(inspect.getdoc(cls) or "", 3), ""]
    if found.options:
        table = "\n".join(
            f"# {key} = ..." if value is None else f"{key} = {_toml(value)}"
            for key, value in found.options.items()
        )
        lines += ["## In a config", "", f"```toml\n[options.{name}]\n{table}\n```", ""]
    return "\n".join(lines)


@cache
def papers() -> dict[str, str]:
    """Return the BibTeX entry of every paper that a strategy cites, by its title."""
    from strategies.registry import strategies

    found: dict[str, str] = {}
    for name in strategies():
        for title, entry in _entries(name).items():
            found.setdefault(title, entry)
    return found


def _entries(name: str) -> dict[str, str]:
    from strategies.citation import bibtex
    from strategies.registry import strategies

    text = bibtex(strategies()[name], name)
    return {_TITLE.findall(entry)[0]: entry for entry in text.split("\n\n") if entry[0] == "@"}


def _cited(name: str) -> list[str]:
    """Return a line that leads from a strategy to its papers; none where it cites none."""
    keys = [_KEY.findall(papers()[title])[0] for title in _entries(name)]
    return (
        [f"In the [list of papers](/generated/papers.md): {{cite}}`{','.join(keys)}`", ""]
        if keys
        else []
    )


@cache
def _methods() -> dict[str, dict[str, str]]:
    return tomllib.loads((_HERE / "methods.toml").read_text(encoding="utf-8"))


def _beside(name: str) -> list[str]:
    """Return when to use a strategy, its cost, the paper's figures beside ours, what was read."""
    told = _methods().get(name)
    figures = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in _PAPERS.read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| `{name}` |")
    ]
    lines: list[str] = []
    if told is not None:
        lines += ["", "## In a formula", "", "```text", told["equation"], "```", "", _NOTATION]
        lines += ["", "## When to use it", "", told["use"], ""]
        lines += [f"Its cost beside retraining: {told['cost']}"]
        if "oracle" in told:
            lines += ["", f"What its tests hold it to: {told['oracle']}"]
        if "read" in told:
            lines += ["", f"Read of its source: {told['read']}."]
    if figures:
        lines += ["", "## Beside the paper", ""]
        lines += ["| the paper's figure | read in | ours | the same setting? |"]
        lines += ["| --- | --- | --- | --- |"]
        lines += [f"| {' | '.join(cells[1:])} |" for cells in figures]
    return lines + measured(name) + _with_defaults(name)


@cache
def _defaults() -> dict[str, dict[str, Any]]:
    """Return what all strategies came to with their defaults."""
    return tallied(read(RESULTS / "defaults_all.csv"))


def _with_defaults(name: str) -> list[str]:
    """Return the section on the defaults of a strategy; none where it answered nowhere."""
    found = _defaults()
    if name not in found:
        return []
    facts, control = found[name], found["random reset"]
    several = max(facts["seeds"]) > 1
    seeds = " to ".join(map(str, sorted(facts["seeds"])))
    where = ", ".join(f"{data} {met} of {tried}" for data, (met, tried) in facts["by_data"].items())
    missed = "; ".join(_missed(facts))
    always = f"Met with every seed in {facts['always']}." if several else ""
    plain = "On a plain network, as here, it is retraining itself, at its cost."
    told = [
        f"Goal met in {facts['met']} of {facts['tried']} settings: {where}.",
        f"Missed {missed}." if missed else "",
        always,
        plain if name in PLAIN_RETRAINING else "",
    ]
    return [
        "",
        "## With its defaults",
        "",
        " ".join(filter(None, told)),
        f"A random reset of as many weights as `no-t` negates: {control['met']} of "
        f"{control['tried']}.",
        "",
        "The goal: a client's backdoor within .05 of retraining's, accuracy on the retained",
        "within 3 points, at most half of retraining's examples. Small networks, three ways of",
        "sharing out, one and four local epochs, "
        f"{f'means of {seeds} seeds' if several else 'one seed'};",
        "`defaults_all.csv` has the measures, `tuning.md` beside it the table of all strategies.",
    ]


def _missed(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield by what the goal was missed, in how many settings, and by how much at worst."""
    for part, said in _PARTS.items():
        if facts[part]:
            far, (data, sharing, epochs) = facts["worst"][part]
            passes = "one local epoch" if epochs == "1" else f"{epochs} local epochs"
            yield (
                f"by {said.format(far=f'{far:.3f}')} ({data}, {sharing}, {passes}), "
                f"in {facts[part]}"
            )
    if facts["failed"]:
        yield f"for want of an answer in {facts['failed']}"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _strategy_list(names: list[str]) -> str:
    from strategies.registry import describe

    lines = ["# Every strategy", "", "| strategy | family | serves | claims | in short |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for entry in describe():
        lines.append(
            f"| [{entry.alias}](strategies/{entry.alias}.md) | {entry.family} | "
            f"{', '.join(entry.scopes)} | {entry.guarantee} | {_markdown(entry.summary)} |"
        )
    lines += ["", *_unread(), "", "```{toctree}", ":hidden:", ""]
    lines += [f"strategies/{name}" for name in names]
    return "\n".join([*lines, "```", ""])


def _unread() -> list[str]:
    """Return the section on methods whose source could not be read whole."""
    lines = ["## Sources that could not be verified", ""]
    lines += ["What was read of them, and what stands in the place of the rest:", ""]
    for name, told in _methods().items():
        if any(word in told.get("read", "") for word in _DOUBTFUL):
            lines.append(f"- [{name}](strategies/{name}.md): {told['read']}.")
    return lines


# --- Python and commands --------------------------------------------------------------------------


def python_page() -> str:
    """Return the reference of the names in ``fedunlearn``."""
    import fedunlearn

    lines = ["# The Python API", "", _markdown(inspect.getdoc(fedunlearn) or "", 2), ""]
    for name in fedunlearn.__all__:
        found = getattr(fedunlearn, name)
        if inspect.isfunction(found):
            lines += [f"## {name}", "", f"```python\nfedunlearn.{name}{_signature(found)}\n```", ""]
            lines += [_markdown(inspect.getdoc(found) or "", 3), ""]
    for name in fedunlearn.__all__:
        found = getattr(fedunlearn, name)
        if inspect.isclass(found):
            lines += [f"## {name}", "", _markdown(inspect.getdoc(found) or "", 3), ""]
            if name in ("Run", "Audit", "Families"):
                lines += _members(found)
    return "\n".join(lines)


def _members(cls: type) -> list[str]:
    lines = []
    for name, member in vars(cls).items():
        if name.startswith("_"):
            continue
        is_method = inspect.isfunction(member)
        title = f"{name}{_signature(member)}" if is_method else name
        lines += [f"### {cls.__name__}.{name}", "", f"```python\n{title}\n```", ""]
        lines += [_markdown(inspect.getdoc(member) or "", 4), ""]
    return lines


def _signature(function: Any) -> str:
    text = str(inspect.signature(function))
    return text.replace("'", "")


def command_page() -> str:
    """Return the reference of the commands with their arguments and options."""
    import click
    from typer.main import get_command

    from experiments.cli import app

    def page(command: click.Command, name: str, level: int) -> Iterator[str]:
        yield from (
            f"{'#' * level} {name}",
            "",
            _markdown(inspect.cleandoc(command.help or "")),
            "",
        )
        rows = [param for param in command.params if not getattr(param, "hidden", False)]
        if rows:
            yield from ("| argument or option | meaning |", "| --- | --- |")
            for param in rows:
                shown = ", ".join(f"`{text}`" for text in (*param.opts, *param.secondary_opts))
                is_option = isinstance(param, click.Option)
                told = f"`{param.metavar or param.name}`" if not is_option else shown
                text = getattr(param, "help", "") or ""
                yield f"| {told} | {_markdown(text)} |".replace("\n", " ")
            yield ""
        for inner, sub in getattr(command, "commands", {}).items():
            yield from page(sub, f"{name} {inner}", min(level + 1, 4))

    lines = ["# Every command", "", *page(get_command(app), "fedunlearn", 2)]
    return "\n".join(lines)


# --- docstrings -----------------------------------------------------------------------------------


def _markdown(text: str, level: int = 2) -> str:
    """Return a docstring in NumPy's form as Markdown; sections become headings of a level."""
    text = _ROLE.sub(r"`\1`", text).replace("``", "`")
    parts = _SECTION.split(text)
    done = [_prose(parts[0])]
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        done += [f"{'#' * level} {title}", _items(body) if title in _ITEMS else _prose(body)]
    return "\n\n".join(part for part in done if part)


def _prose(text: str) -> str:
    """Return paragraphs; what is indented, and what begins with ``>>>``, is code."""
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip()):
        if block.startswith(">>>"):
            blocks.append(f"```python\n{block}\n```")
        elif block.startswith("    "):
            blocks.append(f"```text\n{inspect.cleandoc(block)}\n```")
        else:
            blocks.append(block.replace("<", "&lt;"))
    return "\n\n".join(block for block in blocks if block).replace("::\n", ":\n")


def _items(text: str) -> str:
    """Return parameters and the like as a list."""
    lines: list[str] = []
    for line in text.strip("\n").splitlines():
        if line and not line.startswith(" "):
            name, colon, kind = line.partition(" : ")
            lines.append(f"- `{name}`{f' ({kind})' if colon else ''}")
        elif line.strip():
            lines.append(f"  {line.strip()}")
    return "\n".join(lines).replace("<", "&lt;")
