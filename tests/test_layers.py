"""The plan in ARCHITECTURE.md holds: who imports whom, no circle, no file that runs its content."""

import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.support.layers import House, read_plan

pytestmark = pytest.mark.xdist_group("layers")  # every file is read once, by one worker

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
PLAN = read_plan(PAGE)

ANYTHING = None
ALLOWED = {
    "unlearning": {"numpy", "scipy", "sklearn", "safetensors", "cryptography", "rfc8785"},
    "strategies": {"flwr", "numpy", "unlearning"},
    "clients": {"flwr", "torch", "sklearn", "numpy", "unlearning"},
    "experiments": ANYTHING,
}
# Reading these formats runs code that the file names.
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {("torch", "load"), ("pd", "read_pickle"), ("pandas", "read_pickle")}


@cache
def looked_at(source):
    """Return what a file imports and what it may run, as the two functions below say."""
    imported, unsafe = [], []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                imported += [(node.lineno, alias.name.partition(".")[0]) for alias in node.names]
            case ast.ImportFrom(level=0):  # a relative import stays inside its package
                imported.append((node.lineno, (node.module or "").partition(".")[0]))
            case ast.Attribute(value=ast.Name(id=owner), attr=name):
                if (owner, name) in UNSAFE_CALLS:
                    unsafe.append((node.lineno, f"{owner}.{name}"))
            case ast.keyword(arg="allow_pickle"):
                is_off = isinstance(node.value, ast.Constant) and node.value.value is False
                if not is_off:
                    unsafe.append((node.value.lineno, "allow_pickle"))
    return imported, unsafe


def imports(source):
    """Return (line, top-level module) of every import, those inside functions included."""
    return looked_at(source)[0]


def wrong_imports(package, source):
    """Return (line, module) of the imports that a package must not have."""
    allowed = ALLOWED[package]
    if allowed is ANYTHING:
        return []
    known = allowed | {package} | sys.stdlib_module_names
    return [(line, module) for line, module in imports(source) if module not in known]


def unsafe_reads(source):
    """Return (line, what) of everything that could run code out of a file."""
    found = [(line, module) for line, module in imports(source) if module in UNSAFE_MODULES]
    return found + looked_at(source)[1]


def files(package):
    return sorted((ROOT / package).rglob("*.py"))


@cache
def house():
    return House(ROOT)


def test_every_import_is_one_that_the_plan_allows():
    assert house().wrong(PLAN) == []


def test_no_modules_import_each_other_in_a_circle():
    assert house().circles() == []


def test_nothing_imports_the_benchmarks_and_no_command_the_command_line():
    benchmarks = "experiments.benchmarks"
    assert [
        str(arrow)
        for arrow in house()
        if f"{arrow.target}.".startswith(f"{benchmarks}.")
        and not f"{arrow.source}.".startswith(f"{benchmarks}.")
    ] == []
    assert [
        str(arrow)
        for arrow in house()
        if arrow.target == "experiments.cli" and arrow.source.startswith("experiments.cli.")
    ] == []


def test_the_table_names_every_room_and_no_other():
    folders = {name for name, path in house().files.items() if path.name == "__init__.py"}
    # A folder within a room belongs to it.
    rooms = {name for name in folders if name.count(".") < 2}
    assert rooms <= PLAN.rooms.keys() <= house().files.keys()
    known = {room for allowed in PLAN.rooms.values() for room in allowed}
    assert known <= PLAN.rooms.keys()


def test_every_exception_of_the_page_is_still_one():
    needed = {
        (arrow.source, PLAN.room_of(arrow.target))
        for arrow in house()
        if not PLAN._replace(exceptions=frozenset()).allows(arrow)
    }
    assert needed == PLAN.exceptions


def test_the_rooms_of_unlearning_import_its_top_and_not_each_other():
    rooms = {room for room in PLAN.rooms if room.startswith("unlearning.")}
    assert {room: PLAN.rooms[room] for room in rooms} == dict.fromkeys(
        rooms, frozenset({"unlearning"})
    )
    assert PLAN.rooms["unlearning"] == frozenset()


def test_the_drawing_shows_every_room_and_no_arrow_that_the_table_forbids():
    """``a & b --> c["x, y"]`` is read as every room left of the arrow to every room right of it."""
    drawing = PAGE.partition("```mermaid")[2].partition("```")[0]
    labels = {name: re.split(", ", text) for name, text in re.findall(r'(\w+)\["(.+?)"\]', drawing)}
    plain = re.sub(r'\[".+?"\]', "", drawing)
    drawn = re.findall(r"^ +([\w &]+?) (?:-->|-\. \w+ \.->) ([\w &]+)$", plain, re.MULTILINE)
    assert len(drawn) == len(plain.split("\n")) - 3  # the fence's, the heading, the last
    assert {room for rooms in labels.values() for room in rooms} == PLAN.rooms.keys() - {
        "experiments"
    }
    pairs = {
        (source, target)
        for left, right in drawn
        for a in left.split(" & ")
        for b in right.split(" & ")
        for source in labels[a]
        for target in labels[b]
    }
    rooms_of = {(PLAN.room_of(source), room) for source, room in PLAN.exceptions}
    forbidden = {
        (source, target)
        for source, target in pairs
        if target not in PLAN.rooms[source] and (source, target) not in rooms_of
    }
    assert forbidden == set()


def test_every_file_that_the_page_names_is_there():
    text = PAGE.partition("## The way of one request")[2]
    named = re.findall(r"`((?:unlearning|strategies|clients|experiments)/[\w/]+(?:\.py|/))`", text)
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []


def planted(place, line):
    """Return the tree with a line at the end of one of its files, and the length of that before."""
    text = (ROOT / place).read_text(encoding="utf-8")
    return House(ROOT, {place: f"{text}{line}\n"}), len(text.splitlines())


@pytest.mark.parametrize(
    ("place", "line", "breach"),
    [
        # between packages
        ("unlearning/cost.py", "import strategies.wire", "strategies.wire"),
        ("strategies/wire.py", "from clients.app import make_client_app", "clients.app"),
        ("clients/linear.py", "from strategies import base", "strategies.base"),
        # inside unlearning: a room another, the top a room
        (
            "unlearning/models/parts.py",
            "import unlearning.records.files",
            "unlearning.records.files",
        ),
        ("unlearning/cost.py", "from unlearning.records import files", "unlearning.records.files"),
        # inside strategies and clients
        (
            "strategies/stopping.py",
            "from strategies.structure import ridge",
            "strategies.structure.ridge",
        ),
        (
            "strategies/structure/ridge.py",
            "from strategies.local_model import rows",
            "strategies.local_model.rows",
        ),
        ("clients/training.py", "from clients.steps import find", "clients.steps"),
        # inside experiments, in every dress that an import has
        (
            "experiments/runs/status.py",
            "from experiments.reporting import svg",
            "experiments.reporting.svg",
        ),
        ("experiments/data/markers.py", "from ..models import trunk", "experiments.models.trunk"),
        (
            "experiments/config/registry.py",
            "def late():\n    from experiments.data.datasets import Dataset",
            "experiments.data.datasets",
        ),
        (
            "experiments/federation/quiet.py",
            "if TYPE_CHECKING:\n    from experiments.audit.jobs import Job",
            "experiments.audit.jobs",
        ),
        (
            "experiments/federation/quiet.py",
            'WORK = "experiments.audit.work:work"',
            "experiments.audit.work",
        ),
        (
            "experiments/reporting/__init__.py",
            "import experiments.federation.task",
            "experiments.federation.task",
        ),
        # the benchmarks, the face
        (
            "experiments/cli/listing.py",
            "import experiments.benchmarks.papers",
            "experiments.benchmarks.papers",
        ),
        ("experiments/api/run.py", "import fedunlearn", "fedunlearn"),
    ],
)
def test_a_planted_breach_is_named(place, line, breach):
    source = place.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    changed, length = planted(place, line)
    found = changed.wrong(PLAN)
    assert f"{source}:{length + 1 + line.count(chr(10))} imports {breach}" in found
    assert all(text.startswith(f"{source}:") for text in found)


@pytest.mark.parametrize(
    ("place", "line", "others"),
    [
        # two modules; a module that reaches itself by three; a room's own `__init__`
        ("unlearning/errors.py", "import unlearning.request", ["unlearning.request"]),
        (
            "experiments/runs/folder.py",
            "def late():\n    import experiments.runs.inspection",
            ["experiments.runs.inspection"],
        ),
        (
            "experiments/cli/answers.py",
            "if TYPE_CHECKING:\n    from experiments.cli import app",
            ["experiments.cli"],
        ),
        ("clients/local.py", "from clients import participant", ["clients.participant"]),
    ],
)
def test_a_planted_circle_is_named(place, line, others):
    (found,) = planted(place, line)[0].circles()
    source = place.removesuffix(".py").replace("/", ".")
    assert all(f"{source}:" in found and f" imports {other}" in found for other in others)


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_its_layer_may(package):
    assert files(package), f"{package} has no file"
    wrong = {
        str(path.relative_to(ROOT)): found
        for path in files(package)
        if (found := wrong_imports(package, path.read_text(encoding="utf-8")))
    }
    assert wrong == {}


@pytest.mark.parametrize("package", ALLOWED)
def test_no_file_is_read_in_a_way_that_runs_its_content(package):
    unsafe = {
        str(path.relative_to(ROOT)): found
        for path in files(package)
        if (found := unsafe_reads(path.read_text(encoding="utf-8")))
    }
    assert unsafe == {}


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("unlearning", "import torch"),
        ("unlearning", "from flwr.app import Message"),
        ("unlearning", "def late():\n    import ray"),
        ("unlearning", "if TYPE_CHECKING:\n    from strategies.base import UnlearningStrategy"),
        ("strategies", "import torch.nn as nn"),
        ("strategies", "from clients.app import make_client_app"),
        ("clients", "from strategies.base import UnlearningStrategy"),
        ("clients", "import experiments.config.loading"),
    ],
)
def test_a_wrong_import_is_found_wherever_it_hides(package, source):
    assert len(wrong_imports(package, source)) == 1


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("unlearning", "import json, sqlite3\nimport numpy as np\nfrom . import arrays"),
        ("strategies", "from flwr.serverapp import Grid\nfrom strategies.wire import to_arrays"),
        ("clients", "import torch\nfrom sklearn.linear_model import Ridge"),
        ("experiments", "import torch, flwr, strategies, clients, unlearning"),
    ],
)
def test_a_right_import_passes(package, source):
    assert wrong_imports(package, source) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "model = torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
    ],
)
def test_an_unsafe_read_is_found(source):
    assert len(unsafe_reads(source)) == 1


def test_a_safe_read_passes():
    assert unsafe_reads("np.load(path, allow_pickle=False)\njson.load(file)") == []
