"""Which package may import what, and that no file is read in a way that runs its content."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

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


def imports(source):
    """Return (line, top-level module) of every import, those inside functions included."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name.partition(".")[0]) for alias in node.names]
        # A relative import stays inside its package.
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append((node.lineno, (node.module or "").partition(".")[0]))
    return found


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
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = (node.value.id, node.attr)
            if name in UNSAFE_CALLS:
                found.append((node.lineno, ".".join(name)))
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            is_off = isinstance(node.value, ast.Constant) and node.value.value is False
            if not is_off:
                found.append((node.value.lineno, "allow_pickle"))
    return found


def files(package):
    return sorted((ROOT / package).rglob("*.py"))


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
