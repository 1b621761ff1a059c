"""Settings: what is read, how it is overridden, and what a mistake is answered with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.config.loading import (
    Config,
    alias_of,
    from_mapping,
    from_run_config,
    import_object,
    load,
    to_toml,
)
from experiments.families.plan import read_plan
from unlearning.errors import ConfigError
from unlearning.request import Scope

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = sorted((ROOT / "experiments" / "configs").glob("*.toml"))
DIGITS = ROOT / "experiments" / "configs" / "digits_client.toml"
CLIENT_3 = {"scope": "client", "clients": [3]}


def test_issue_config_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        'seed = 4\nstrategy = "fed-eraser"\nrounds = 20\nrecovery_rounds = 5\ndevice = "auto"\n'
        '[options]\ninterval = 2\n[data]\nname = "digits"\nclients = 10\npartitioner = "iid"\n'
        '[model]\nname = "mlp"\n[train]\nlocal_epochs = 2\nbatch_size = 32\nlearning_rate = 0.1\n'
        '[marker]\nkind = "backdoor"\nclient = 3\n'
        '[[requests]]\nscope = "client"\nclients = [3]\nat_round = 20\n[engine]\nworkers = 2\n'
    )
    config = load(path)
    assert config.seed == 4
    assert config.options_for("fed-eraser") == {"interval": 2}
    assert config.train.local_epochs == 2
    assert config.marker is not None
    assert config.marker.client == 3
    (request,) = config.domain_requests({})
    assert (request.scope, request.clients, request.at_round) == (Scope.CLIENT, (3,), 20)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_read_and_written_back(path: Path, tmp_path: Path) -> None:
    config = load(path)
    again = tmp_path / "config.toml"
    again.write_text(to_toml(config))
    assert load(again) == config
    assert json.loads(json.dumps(config.to_dict())) == config.to_dict()


def test_pga_setting() -> None:
    config = load(ROOT / "experiments" / "configs" / "mnist_pga.toml")
    assert (config.rounds, config.recovery_rounds, config.data.clients) == (10, 10, 5)
    assert config.train.max_steps == 0
    assert config.recovery_train.max_steps == 50
    assert config.recovery_train.momentum == config.train.momentum == 0.9
    assert config.marker is not None
    assert (config.marker.label, config.marker.fraction, config.marker.value) == (9, 0.8, 1.0)


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("rounds=3", lambda c: c.rounds == 3),
        ("train.learning_rate = 1", lambda c: c.train.learning_rate == 1.0),
        ("strategy=retrain", lambda c: c.strategy == "retrain"),
        ("strategies=a,b", lambda c: c.strategies == ("a", "b")),
        ('strategies=["a"]', lambda c: c.strategies == ("a",)),
        ("data.name=npz:x=y.npz", lambda c: c.data.name == "npz:x=y.npz"),
        ("data.alpha=0.5", lambda c: c.data.params == {"alpha": 0.5}),
        ("model.hidden=9", lambda c: c.model.params == {"hidden": 9}),
        ("marker=", lambda c: c.marker is None),
        ("requests.0.clients=[1, 2]", lambda c: c.requests[0].clients == (1, 2)),
        ("requests=[]", lambda c: c.requests == ()),
        ("options.fed-eraser.interval=7", lambda c: c.options_for("fed-eraser")["interval"] == 7),
        ("data.partitioner=natural-id", lambda c: c.data.clients == 10),
        ("model.name='x'\ny = 1", lambda c: c.model.name == "'x'\ny = 1"),
    ],
)
def test_override(override: str, read: object) -> None:
    assert callable(read)
    assert read(load(DIGITS, [override]))


def test_last_override_wins_and_new_entries_are_appended() -> None:
    config = load(
        DIGITS,
        [
            "rounds=3",
            "rounds=4",
            "requests.1.scope=class",
            "requests.1.classes=7".replace("=7", "=[7]"),
        ],
    )
    assert config.rounds == 4
    assert config.requests[1].classes == (7,)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("ruonds=3", ["'ruonds'", "'rounds'"]),
        ("train.learning_rte=1", ["[train]", "'learning_rte'", "'learning_rate'"]),
        ("learning_rate=1", ["'learning_rate'", "'train.learning_rate'"]),
        ("train.rounds=1", ["'train.rounds'", "'rounds'"]),
        ("rounds=twenty", ["rounds = 'twenty'", "integer", "default 20"]),
        ("rounds=0", ["rounds = 0", "greater than or equal to 1"]),
        ("rounds=true", ["rounds = True", "integer"]),
        ("train.learning_rate=nan", ["train.learning_rate = nan", "finite"]),
        ("data=3", ["data = 3", "[data]"]),
        ("options=3", ["options = 3", "table"]),
        ("device=tpu", ["device = 'tpu'", "cuda"]),
        ("history.dtype=float64", ["history.dtype = 'float64'", "float16"]),
        ("marker.client=", ["marker.client is missing"]),
        ("requests.0.at_round=50", ["requests.0.at_round = 50", "rounds = 20", "lower it"]),
        ("requests.0.scope=planet", ["requests.0.scope = 'planet'", "'client'"]),
        ("requests.0.clients=[-1]", ["requests.0.clients.0 = -1"]),
        ("requests.0.clients=[]", ["requests.0", "needs clients"]),
        ("requests.0.samples=[1.5]", ["requests.0.samples = [1.5]", "positions"]),
        ("requests.0.samples={a = [1]}", ["requests.0.samples", "'a'"]),
        ("requests.7.scope=client", ["'requests.7.scope'", "0 to 1"]),
        ("rounds.x=1", ["'rounds.x'", "plain value"]),
        ("rounds", ["'rounds'", "key=value"]),
    ],
)
def test_mistake_is_one_line_that_names_value_and_remedy(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(DIGITS, [override])
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    for word in words:
        assert word in message


def test_all_but_the_first_mistake_are_counted() -> None:
    with pytest.raises(ConfigError, match=r"\(and 2 more\)$"):
        load(DIGITS, ["rounds=0", "recovery_rounds=-1", "seed=-1"])


def test_file_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)
    bad = tmp_path / "bad.toml"
    bad.write_text("rounds = \n")
    with pytest.raises(ConfigError, match=r"not TOML.*line 1"):
        load(bad)
    bad.write_bytes("seed = 3 # Größe".encode("latin-1"))
    with pytest.raises(ConfigError, match="not TOML"):
        load(bad)
    bad.write_text("rounds = 0\n")
    with pytest.raises(ConfigError, match=r"bad\.toml: rounds = 0"):
        load(bad)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_file_as_editors_on_windows_write_it(tmp_path: Path, encoding: str, ending: str) -> None:
    lines = ["# Größe", "seed = 3", "[train]", "batch_size = 7", ""]
    (tmp_path / "own.toml").write_bytes(ending.join(lines).encode(encoding))
    found = load(tmp_path / "own.toml")
    assert (found.seed, found.train.batch_size) == (3, 7)
    (tmp_path / "plan.toml").write_bytes(ending.join(lines).encode(encoding))
    with pytest.raises(ConfigError, match="seed: Extra inputs"):  # read, and no plan
        read_plan(tmp_path / "plan.toml")


def test_shipped_config_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load("experiments/configs/digits_client.toml") == load(DIGITS)


def test_options_go_to_their_strategy_alone() -> None:
    raw = {
        "strategy": "strategies.fed_eraser:FedEraser",
        "options": {"interval": 2, "fed-eraser": {"ratio": 0.5}, "gradient-ascent": {"clip": 5}},
    }
    config = from_mapping(raw)
    assert config.options_for("fed-eraser") == {"interval": 2, "ratio": 0.5}
    assert config.options_for("strategies.local_model.gradient_ascent:GradientAscent") == {
        "clip": 5
    }
    assert config.options_for("retrain") == {}
    assert config.option_tables == ("fed-eraser", "gradient-ascent")
    assert alias_of("mine:MyOwnSGD") == "my-own-sgd"


@pytest.mark.parametrize(
    ("entry", "samples"),
    [
        ({"clients": [3], "samples": [4, 8]}, {3: (4, 8)}),
        ({"samples": {"3": [4], "5": [1, 2]}}, {3: (4,), 5: (1, 2)}),
        ({"samples": "marked"}, {3: (1, 9)}),
        ({"clients": [3], "samples": "marked"}, {3: (1, 9)}),
    ],
)
def test_samples_of_a_request(entry: dict[str, object], samples: object) -> None:
    config = from_mapping({"marker": {"client": 3}, "requests": [{"scope": "sample", **entry}]})
    (request,) = config.domain_requests({3: (9, 1)})
    assert request.samples == samples
    assert request.clients == ()
    assert request.at_round == config.rounds


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"clients": [3, 4], "samples": [4]}, "name the one client"),
        ({"samples": [4]}, "name the one client"),
        ({"samples": "marked"}, "marker"),
        ({"clients": [3], "samples": []}, "needs"),
        ({"samples": {3: []}}, "client 3"),
    ],
)
def test_ambiguous_samples_are_refused(entry: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        from_mapping({"requests": [{"scope": "sample", **entry}]})


def test_requests_have_fixed_ids_that_must_differ() -> None:
    config = from_mapping({"requests": [CLIENT_3, {**CLIENT_3, "clients": [4], "id": "mine"}]})
    assert [request.id for request in config.domain_requests({})] == ["config-1", "mine"]
    with pytest.raises(ConfigError, match=r"requests\.1\.id = 'config-1' is taken"):
        from_mapping({"requests": [CLIENT_3, {**CLIENT_3, "id": "config-1"}]})


def test_run_config_of_flower() -> None:
    config = from_run_config(
        {
            "rounds": 4,
            "recovery-rounds": 2,
            "train.learning-rate": 0.5,
            "data.root": "",
            "options.fed-eraser.calibration-scope": "model",
            "strategies": "fed-eraser,retrain",
            "requests": json.dumps([CLIENT_3]),
            "out": "runs/x",
            "config": "",
            "set": "rounds=5 data.name='npz:a b.npz'",
        }
    )
    assert (config.rounds, config.recovery_rounds, config.train.learning_rate) == (5, 2, 0.5)
    assert config.data.root is None
    assert config.data.name == "npz:a b.npz"
    assert config.options_for("fed-eraser") == {"calibration_scope": "model"}
    assert config.strategies == ("fed-eraser", "retrain")
    assert config.requests[0].clients == (3,)


def test_run_config_file_takes_the_place_of_other_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("rounds = 7\n")
    given = {"config": str(path), "rounds": 3, "marker.client": 3, "set": "seed=9"}
    config = from_run_config(given)
    assert (config.rounds, config.seed, config.marker) == (7, 9, None)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"requests": "[{"}, "JSON"),
        ({"set": "a='"}, "close the quote"),
        ({"ruonds": 3}, "'rounds'"),
        ({"rounds": 3, "rounds.x": 1}, "plain value"),
    ],
)
def test_run_config_mistakes(given: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        from_run_config(given)


def test_import_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_own_module.py").write_text("class A:\n    b = 3\n")
    assert import_object("my_own_module:A.b", "thing") == 3
    with pytest.raises(ConfigError, match=r"'AA'; did you mean 'A'\?"):
        import_object("my_own_module:AA", "thing")
    with pytest.raises(ConfigError, match=r"thing 'no_such_module:x'.*No module"):
        import_object("no_such_module:x", "thing")
    with pytest.raises(ConfigError, match="write module:name"):
        import_object(":x", "thing")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def a(:", "SyntaxError"),
        ("a = b", "NameError: name 'b' is not defined"),
        ("raise ValueError('no\\nway')", "ValueError: no way"),
        ("import sys; sys.exit('stop')", "SystemExit: stop"),
        ("a = 3", "unknown name 'wanted'"),
    ],
)
def test_modules_that_fail_are_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "failing_module", raising=False)
    (tmp_path / "failing_module.py").write_text(source)
    with pytest.raises(ConfigError, match=words) as caught:
        import_object("failing_module:wanted", "thing")
    assert "\n" not in str(caught.value)
    sys.modules.pop("failing_module", None)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().rounds = 3


def test_import_is_light() -> None:
    code = (
        "import sys, experiments.config.loading; "
        "print([m for m in ('torch', 'sklearn', 'flwr', 'scipy', 'ray') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(0, 2**63 - 1),
            "rounds": st.integers(1, 10**6),
            "device": st.sampled_from(["auto", "cpu", "cuda", "cuda:3"]),
            "strategy": st.text(
                st.characters(exclude_categories=["C", "Z"], include_characters=" "), min_size=1
            ),
            "options": st.dictionaries(
                st.text("abc-_", min_size=1), st.integers() | st.booleans() | st.text("x\"'\n\\ü")
            ),
            "train": st.fixed_dictionaries(
                {}, optional={"learning_rate": st.floats(1e-9, 1e9), "momentum": st.floats(0, 0.9)}
            ),
        },
    )
)
def test_any_config_survives_toml(raw: dict[str, object]) -> None:
    import tomllib

    config = from_mapping(raw)
    assert from_mapping(tomllib.loads(to_toml(config))) == config


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("seed\u00a0= 1\n".encode(), "holds U+00A0 (no-break space)"),
        ("\u200bseed = 1\n".encode(), "holds U+200B (zero width space)"),
        ("strategy = \u201cretrain\u201d\n".encode(), "holds U+201C (left double quotation mark)"),
        ("seed = \u22121\n".encode(), "holds U+2212 (minus sign)"),
        (b"seed = 1\x1a\n", "holds U+001A (a control character)"),
        ("seed = 1\n".encode("utf-16-be"), "save it as UTF-8"),
        ("seed = 1\n".encode("utf-32"), "save it as UTF-8"),
        ("rounds = 2\n# f\xfcr\n".encode("latin-1"), "line 2 is no UTF-8; save it as UTF-8"),
        (b"seed: 1\n", "correct it"),
        ("name = 'Z\xfcrich\n".encode(), "correct it"),
    ],
)
def test_a_letter_that_an_eye_does_not_see_is_named(
    tmp_path: Path, written: bytes, words: str
) -> None:
    (tmp_path / "odd.toml").write_bytes(written)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "odd.toml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
