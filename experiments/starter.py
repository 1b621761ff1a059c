"""What ``fedunlearn new`` writes: a strategy of one's own, a config, and a test that passes."""

from __future__ import annotations

import keyword
from importlib.util import find_spec
from pathlib import Path
from string import Template

from unlearning.errors import ConfigError

__all__ = ["begin"]

_STRATEGY = Template('''"""$cls: go part of the way back to an earlier model, then learn on.

References
----------
Name the paper here: authors, title, venue, year, identifier.
"""

from __future__ import annotations

from strategies.base import UnlearningStrategy, in_range
from unlearning.arrays import Arrays, is_buffer
from unlearning.records.history import History
from unlearning.request import Guarantee, Request, Scope


def step_back(now: Arrays, earlier: Arrays, share: float) -> Arrays:
    """Return the model ``share`` of the way from ``now`` to ``earlier``; buffers stay as now."""
    return {
        name: array
        if is_buffer(name, array)
        else (array + share * (earlier[name] - array)).astype(array.dtype)
        for name, array in now.items()
    }


class $cls(UnlearningStrategy):
    """Step back towards the model before the forgotten first took part.

    Parameters
    ----------
    share : float, default 0.9
        How far back: 0 changes nothing, 1 takes the earlier model itself.
    rounds : int, default 2
        Rounds in which the remaining clients learn on, before the recovery all strategies have.
    """

    # What it serves and claims; the base refuses everything else before a message is sent.
    scopes = frozenset({Scope.CLIENT, Scope.SAMPLE, Scope.CLASS})
    guarantee = Guarantee.APPROXIMATE
    needs = frozenset({"globals"})  # the models at the start of every round are kept

    def __init__(self, *, share: float = 0.9, rounds: int = 2) -> None:
        super().__init__()
        in_range("share", share, 0, 1)
        in_range("rounds", rounds, 0)
        self.share = share
        self.rounds = rounds

    def prepare(
        self, request: Request, history: History, arrays: Arrays
    ) -> tuple[Arrays, int]:
        """Return where to start, and how many rounds of the remaining clients follow."""
        first = history.first_round(request)
        before = [t for t in history.stored_rounds if first is not None and t <= first]
        if not before:
            return arrays, 0  # they never took part
        return step_back(arrays, history.arrays(before[-1]), self.share), self.rounds

    # instruct(server_round) says who works, on what; left out: the remaining clients train.
    # combine(server_round, arrays, replies) makes the next model; left out: the weighted mean.
''')

_CONFIG = Template("""# `fedunlearn compare $name.toml` runs it from this folder.
strategy = "$name:$cls"
strategies = ["$name:$cls", "fed-eraser"]
rounds = 10
recovery_rounds = 3

[options."$name:$cls"]
share = 0.9
rounds = 2

[data]
name = "digits"   # embedded; "npz:PATH" for your own arrays
clients = 10

[train]
local_epochs = 2

[marker]          # a backdoor in one client's data, to see whether it is forgotten
kind = "backdoor"
client = 3

[[requests]]
scope = "client"
clients = [3]
""")

_TEST = Template('''"""What $cls promises. `pytest` in this folder runs it."""

from pathlib import Path

import fedunlearn
import numpy as np
import pytest
from $name import $cls, step_back

CONFIG = Path(__file__).with_name("$name.toml")


def test_it_goes_its_share_of_the_way_back():
    now, earlier = {"w": np.array([4.0, -2.0])}, {"w": np.array([0.0, 2.0])}
    assert step_back(now, earlier, 0.25)["w"].tolist() == [3.0, -1.0]
    assert now["w"].tolist() == [4.0, -2.0]  # what is given is not changed


def test_an_option_out_of_range_is_refused():
    with pytest.raises(fedunlearn.ConfigError, match="share"):
        $cls(share=2.0)


def test_it_answers_and_forgets_more_than_learning_on(tmp_path):
    run = fedunlearn.compare(
        CONFIG,
        strategies=[$cls],
        out=tmp_path / "run",
        rounds=4,
        recovery_rounds=1,
        engine={"grid": "local"},  # in this process; no worker is started
    )
    found = run.to_frame().set_index("strategy")
    assert found.guarantee["$alias"] == "approximate"
    assert found.test_accuracy["$alias"] > 0.2
    assert found.backdoor_success["$alias"] <= found.backdoor_success["fine-tune"]
''')


def begin(name: str, folder: Path) -> list[Path]:
    """Write ``NAME.py``, ``NAME.toml`` and ``test_NAME.py``; return their paths.

    Parameters
    ----------
    name : str
        Of the module, in small letters; a hyphen counts as an underscore.
    folder : Path
        It exists.

    Raises
    ------
    ConfigError
        If the name is none of a module, another module has it, or a file is there already; nothing
        is written then.
    """
    from experiments.config.schema import alias_of

    module = name.strip().replace("-", "_")
    if not module.isidentifier() or module != module.lower() or keyword.iskeyword(module):
        raise ConfigError(
            f"{name!r} cannot be the name of a module; take small letters, digits and underscores, "
            "for example my_strategy"
        )
    paths = [folder / f"{module}.py", folder / f"{module}.toml", folder / f"test_{module}.py"]
    if not folder.is_dir():
        raise ConfigError(f"folder {folder} does not exist; make it first")
    for path in paths:
        if path.exists():
            raise ConfigError(f"{path} is there already; choose another name")
    if find_spec(module) is not None:
        raise ConfigError(f"a module named {module!r} is installed; choose another name")
    cls = "".join(part.capitalize() for part in module.split("_") if part)
    words = {"name": module, "cls": cls, "alias": alias_of(f"{module}:{cls}")}
    for path, template in zip(paths, (_STRATEGY, _CONFIG, _TEST), strict=True):
        path.write_text(template.substitute(words), encoding="utf-8")
    return paths
