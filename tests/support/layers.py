"""What the modules of a tree import of each other, held against the plan in ARCHITECTURE.md.

Works on the text of a tree and imports nothing of it, so a copy of the tree can be looked at as
well. ``python -m tests.support.layers [ROOT]`` prints the figures of a tree.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["FACE", "PACKAGES", "Arrow", "House", "Plan", "figures", "read_plan"]

PACKAGES = ("unlearning", "strategies", "clients", "experiments")
FACE = "fedunlearn"
_BELOW = ("unlearning.*", "strategies.*", "clients.*")
# A row of the table of rooms and a line of the list of exceptions, as ARCHITECTURE.md writes them.
_ROW = re.compile(r"^\| `([a-z_.]+)` \|.*\| ([^|]*) \|$", re.MULTILINE)
_NAMED = re.compile(r"[a-z_]+(\.[a-z_]+)+(:\w+)?")  # a text that could name a module
_EXCEPTION = re.compile(r"^- `([a-z_.]+)` imports `([a-z_.]+)`: \S", re.MULTILINE)


class Arrow(NamedTuple):
    """One import: who, in which line, of what."""

    source: str
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


class Plan(NamedTuple):
    """What ARCHITECTURE.md says: the rooms, what each may import, and the exceptions."""

    rooms: Mapping[str, frozenset[str]]
    exceptions: frozenset[tuple[str, str]]

    def room_of(self, module: str) -> str:
        """Return the room a module lies in: the longest name of the table that it begins with.

        A module beside the rooms of a package that no row names lies in the package itself.
        """
        while module not in self.rooms:
            if "." not in module:
                raise KeyError(f"ARCHITECTURE.md has no row for {module}")
            module = module.rpartition(".")[0]
        return module

    def allows(self, arrow: Arrow) -> bool:
        """Return whether a module may import another."""
        source, target = self.room_of(arrow.source), self.room_of(arrow.target)
        return (
            source == target
            or target in self.rooms[source]
            or (arrow.source, target) in self.exceptions
        )


def read_plan(text: str) -> Plan:
    """Read the table of rooms and the list of exceptions out of ARCHITECTURE.md.

    ``unlearning.*`` in the last column stands for a package and all its rooms. The rooms of
    `experiments` may import the three packages below them as well.
    """
    rows = {room: re.findall(r"`([a-z_.]+\*?)`", cell) for room, cell in _ROW.findall(text)}

    def meant(name: str) -> set[str]:
        if not name.endswith(".*"):
            return {name}
        top = name.removesuffix(".*")
        return {room for room in rows if room == top or room.startswith(f"{top}.")}

    rooms = {
        room: frozenset().union(
            *map(meant, names),
            *(map(meant, _BELOW) if room.startswith("experiments.") else ()),
        )
        for room, names in rows.items()
    }
    return Plan(rooms, frozenset(_EXCEPTION.findall(text)))


@lru_cache(maxsize=4096)
def _names(text: str) -> tuple[tuple[int, int, str, str], ...]:
    """Return (line, dots of a relative import, module, name) of all that a file imports.

    Imports inside functions and under ``TYPE_CHECKING`` count, and so does a text that names a
    module, with or without ``:function``: that is an import in another dress.
    """
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, 0, alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found += [(node.lineno, node.level, module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Constant) and _NAMED.fullmatch(str(node.value)):
            found.append((node.lineno, -1, str(node.value).partition(":")[0], ""))
    return tuple(found)


class House:
    """The modules of the four packages below a folder, and what they import of each other.

    ``import a.b.c`` runs ``a/__init__`` and ``a.b/__init__`` too, so it counts as an import of
    all three, save those that the importing module lies in itself. ``instead`` gives files, by
    their path below the folder, another text than the one they hold.
    """

    def __init__(self, root: Path, instead: Mapping[str, str] | None = None) -> None:
        self._instead = {root / place: text for place, text in (instead or {}).items()}
        self.files: dict[str, Path] = {}
        face = [path for path in [root / f"{FACE}.py"] if path.is_file()]
        for path in face + [
            path for name in PACKAGES for path in sorted((root / name).rglob("*.py"))
        ]:
            parts = path.relative_to(root).with_suffix("").parts
            self.files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        self.arrows = {module: tuple(self._arrows_of(module)) for module in self.files}

    def __iter__(self) -> Iterator[Arrow]:
        return (arrow for arrows in self.arrows.values() for arrow in arrows)

    def _arrows_of(self, module: str) -> Iterator[Arrow]:
        path = self.files[module]
        text = self._instead.get(path)
        for line, dots, base, name in _names(text or path.read_text(encoding="utf-8")):
            full = base
            if dots > 0:
                here = module.split(".")
                up = dots - (self.files[module].name == "__init__.py")
                full = ".".join([*here[: len(here) - up], *filter(None, [base])])
            if dots < 0 and full not in self.files:
                continue
            if f"{full}.{name}" in self.files:
                full = f"{full}.{name}"
            if full.partition(".")[0] not in (*PACKAGES, FACE):
                continue
            while full not in self.files:  # a class, or a module that is not there
                full = full.rpartition(".")[0]
            yield Arrow(module, line, full)
            while "." in full:
                full = full.rpartition(".")[0]
                if not f"{module}.".startswith(f"{full}."):
                    yield Arrow(module, line, full)

    def wrong(self, plan: Plan) -> list[str]:
        """Return the imports that the plan does not allow."""
        return sorted({str(arrow) for arrow in self if not plan.allows(arrow)})

    def targets(self, module: str) -> set[str]:
        """Return what a module imports."""
        return {arrow.target for arrow in self.arrows[module]} - {module}

    def groups(self) -> list[tuple[str, ...]]:
        """Return the modules, those that reach each other together, imported ones first.

        A group of more than one is a circle (Tarjan, "Depth-first search and linear graph
        algorithms", SIAM J. Comput. 1972).
        """
        number: dict[str, int] = {}
        lowest: dict[str, int] = {}
        open_: list[str] = []
        found: list[tuple[str, ...]] = []

        def visit(module: str) -> None:
            number[module] = lowest[module] = len(number)
            open_.append(module)
            for target in sorted(self.targets(module)):
                if target not in number:
                    visit(target)
                    lowest[module] = min(lowest[module], lowest[target])
                elif target in open_:
                    lowest[module] = min(lowest[module], number[target])
            if lowest[module] == number[module]:
                start = open_.index(module)
                found.append(tuple(sorted(open_[start:])))
                del open_[start:]

        for module in self.files:
            if module not in number:
                visit(module)
        return found

    def circles(self) -> list[str]:
        """Return every circle of imports, with the lines that close it."""
        found = []
        for group in self.groups():
            if len(group) > 1:
                lines = {
                    str(arrow)
                    for module in group
                    for arrow in self.arrows[module]
                    if arrow.target in group and arrow.target != module
                }
                found.append("; ".join(sorted(lines)))
        return found

    def floors(self) -> int:
        """Return the length of the longest chain of imports; a circle counts as one floor."""
        height: dict[str, int] = {}
        for group in self.groups():
            below = {target for module in group for target in self.targets(module)} - {*group}
            level = 1 + max((height[target] for target in below), default=0)
            height.update(dict.fromkeys(group, level))
        return max(height.values())


def _body(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function without its signature and its docstring."""
    rest = node.body[ast.get_docstring(node) is not None :]
    return (node.end_lineno or 0) - rest[0].lineno + 1 if rest else 0


def figures(root: Path, plan: Plan) -> dict[str, object]:
    """Return what can be counted of a tree: files, floors, lengths, circles, arrows."""
    house = House(root)
    lines = {
        path.relative_to(root).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in house.files.values()
    }
    spans = {
        f"{module}.{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for module, path in house.files.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    bodies = {
        f"{module}.{node.name}": _body(node)
        for module, path in house.files.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    longest, widest = max(lines, key=lines.__getitem__), max(spans, key=spans.__getitem__)
    try:
        against: object = len(house.wrong(plan))
    except KeyError as error:
        against = f"cannot be told: {error.args[0]}"
    return {
        "files at the top": {name: len([*(root / name).glob("*.py")]) for name in PACKAGES},
        "floors of imports": house.floors(),
        "longest file": f"{longest}, {lines[longest]} lines",
        "files past 450 lines": sorted(name for name in lines if lines[name] > 450),
        "longest function": f"{widest}, {spans[widest]} lines",
        "functions past 60 lines": sorted(name for name in spans if spans[name] > 60),
        "of these without signature and docstring": sorted(
            name for name in bodies if bodies[name] > 60
        ),
        "longest body": max(bodies.values()),
        "circles": len(house.circles()),
        "imports against the plan": against,
    }


if __name__ == "__main__":
    here = Path(__file__).parents[2]
    for what, value in figures(
        Path(sys.argv[1]) if len(sys.argv) > 1 else here,
        read_plan((here / "ARCHITECTURE.md").read_text(encoding="utf-8")),
    ).items():
        print(f"{what}: {value}")
