"""Runs from Python: what is made, what is read back, what is said when it is not there."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

import fedunlearn
from experiments.runs.details import FeatureMeasure, TextMeasure, read_details
from experiments.runs.results import COSTS
from tests.support.finished import write_run
from unlearning.evaluation.scorecard import METRICS

SMALL = {
    "rounds": 2,
    "recovery_rounds": 1,
    "data": {"clients": 4, "limit": 400},
    "marker": {"kind": "backdoor", "client": 3},
    "requests": [{"scope": "client", "clients": [3]}],
    "engine": {"grid": "local"},
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    return fedunlearn.compare(
        SMALL,
        strategies={"fed-eraser": {"interval": 1}, "no-t": {}},
        seeds=[0, 1],
        out=tmp_path_factory.mktemp("api") / "compared",
    )


def test_a_comparison_is_a_table_with_a_row_per_strategy_and_seed(comparison):
    table = comparison.to_frame()
    names = ["original", "retrain", "fine-tune", "fed-eraser", "no-t"]
    assert list(zip(table.strategy, table.seed, strict=True)) == [
        (name, seed) for seed in (0, 1) for name in names
    ]
    written = pd.read_csv(comparison.path / "results.csv")
    assert list(table.columns) == list(written.columns)
    numbers = [*METRICS, *COSTS]
    pd.testing.assert_frame_equal(table[numbers], written[numbers], check_dtype=False)
    assert table.failed.isna().all()
    assert all(table[name].dtype == float for name in (*METRICS, *COSTS))


def test_measures_of_text_and_features_are_columns(tmp_path):
    folder = write_run(tmp_path / "run", seeds=(0, 1))
    plain = list(fedunlearn.open_run(folder).to_frame().columns)
    details = read_details(folder)
    one = TextMeasure(strategy="retrain", seed=1, measure="canary_exposure", value=1.5)
    two = FeatureMeasure(strategy="original", seed=0, measure="sensitivity", value=0.25)
    changed = details.model_copy(update={"text_measures": (one,), "feature_measures": (two,)})
    (folder / "details.json").write_text(changed.model_dump_json())
    table = fedunlearn.open_run(folder).to_frame()
    assert list(table.columns) == [*plain, "canary_exposure", "sensitivity"]
    found = table.dropna(subset=["canary_exposure"])
    assert [*found[["strategy", "seed", "canary_exposure"]].iloc[0]] == ["retrain", 1, 1.5]
    assert table.sensitivity.notna().sum() == 1


def test_a_run_knows_itself(comparison):
    assert (comparison.kind, comparison.state) == ("compare", "finished")
    assert comparison.config.options_for("fed-eraser") == {"interval": 1}
    assert fedunlearn.open_run(comparison.path).to_frame().equals(comparison.to_frame())
    assert repr(comparison) == f"Run({str(comparison.path)!r}, finished)"


def test_its_report_names_the_call(comparison):
    assert comparison.report() == comparison.path / "report.html"
    told = json.loads((comparison.path / "report.json").read_text())["command"]
    assert told.startswith("fedunlearn.compare({'rounds': 2")
    assert "strategies={'fed-eraser': {'interval': 1}, 'no-t': {}}" in told


def test_timeline_and_requests_are_tables(comparison):
    points = comparison.timeline()
    assert {"learn", "unlearn", "recover"} == set(points.phase)
    assert points[points.strategy == "original"]["round"].tolist() == [1, 2, 1, 2]
    asked = comparison.requests()
    assert set(asked.state) == {"fulfilled"}
    assert "no-t/seed-1" in set(asked.branch)


def test_curves_begin_where_learning_ended(comparison):
    axes = comparison.plot("backdoor_success", ax=Figure().subplots())
    lines = {line.get_label(): line for line in axes.get_lines()}
    learned, answered = (lines[name].get_xydata() for name in ("original", "fed-eraser"))
    assert learned[-1].tolist() == answered[0].tolist()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("round", "backdoor success")


def test_a_point_per_strategy_and_seed(comparison):
    axes = comparison.plot("test_accuracy", against="examples", ax=Figure().subplots())
    points = np.concatenate([found.get_offsets() for found in axes.collections])
    assert len(points) == len(comparison.to_frame())
    few = comparison.plot("mia_auc", against="wall_s", strategies=["no-t"], ax=Figure().subplots())
    assert [found.get_label() for found in few.collections] == ["no-t"]


def test_axes_of_its_own_are_those_of_pyplot(comparison):
    from matplotlib import pyplot as plt

    before = plt.get_backend()
    plt.switch_backend("agg")
    axes = comparison.plot()
    assert axes.figure.number in plt.get_fignums()
    plt.close(axes.figure)
    plt.switch_backend(before)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"metric": "accuracy"}, "unknown column 'accuracy'; did you mean"),
        ({"metric": "seed"}, "unknown column 'seed'"),
        ({"metric": "mia_auc", "against": "example"}, "did you mean 'examples'"),
        ({"strategies": ["no"]}, "unknown strategy 'no'"),
    ],
)
def test_what_cannot_be_drawn_is_said(comparison, asked, words):
    with pytest.raises(fedunlearn.ConfigError, match=words):
        comparison.plot(**asked)


def test_a_notebook_shows_the_scorecard(comparison):
    page = comparison._repr_html_()
    for words in ("<table", "fed-eraser", "approximate", "Backdoor success", "over 2 seeds"):
        assert words in page


def test_a_comparison_keeps_no_model(comparison):
    with pytest.raises(fedunlearn.ConfigError, match="a comparison keeps none"):
        comparison.model()


def test_a_run_gives_its_model(tmp_path):
    made = fedunlearn.run(SMALL, out=tmp_path / "one", strategy="no-t")
    network = made.model()
    x = torch.zeros(2, 1, 8, 8)
    with torch.inference_mode():
        expected = network(x).softmax(1).numpy()
    assert not network.training
    assert np.allclose(made.predict(x.numpy()), expected)
    assert made.arrays().keys() == network.state_dict().keys()
    assert made.kind == "run"


def test_a_model_that_is_no_network_is_asked_all_the_same(tmp_path):
    made = fedunlearn.run(
        SMALL, out=tmp_path / "one", model={"name": "ridge"}, strategy="ridge", rounds=1
    )
    with pytest.raises(fedunlearn.ConfigError, match="is no network"):
        made.model()
    assert made.predict(np.zeros((3, 1, 8, 8))).shape == (3, 10)


def test_nothing_is_printed_and_folders_of_one_second_do_not_meet(capfd):
    first, second = (fedunlearn.run(SMALL, rounds=1, recovery_rounds=0) for _ in range(2))
    assert first.path != second.path
    assert {first.path.parent.name, second.path.parent.name} == {"runs"}
    assert capfd.readouterr() == ("", "")


def test_progress_is_a_bar_or_whatever_one_likes(capfd):
    ticks = []
    fedunlearn.run(SMALL, rounds=1, recovery_rounds=0, progress=ticks.append)
    assert ticks[0].phase == "learn"
    assert capfd.readouterr() == ("", "")
    fedunlearn.run(SMALL, rounds=1, recovery_rounds=0, progress=True)
    assert "learn, round 1" in capfd.readouterr().err


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "own.npz"
    draw = np.random.default_rng(0)
    found = []
    for classes in (2, 3):
        y = np.arange(80) % classes
        np.savez(path, x=draw.normal(size=(80, 4)).astype(np.float32), y=y)
        made = fedunlearn.run(
            SMALL, marker=None, data={"name": f"npz:{path}", "limit": None}, rounds=1
        )
        found.append(made.predict(np.zeros((1, 4))).shape[1])
    assert found == [2, 3]


def test_what_worker_processes_cannot_import_is_said_at_once(monkeypatch):
    config = {**SMALL, "engine": {"grid": "ray"}, "data": {"name": "__main__:load", "clients": 4}}
    with pytest.raises(fedunlearn.ConfigError, match="notebook or a script"):
        fedunlearn.compare(config)
    with pytest.raises(fedunlearn.ConfigError, match="workers=1"):
        fedunlearn.audit(SMALL, strategies=["__main__:Mine"], workers=2)


def test_an_interrupt_is_an_interrupt():
    def stop(tick):
        raise InterruptedError("run cancelled")

    with pytest.raises(KeyboardInterrupt):
        fedunlearn.run(SMALL, progress=stop)


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(fedunlearn.ConfigError, match="does not exist"):
        fedunlearn.open_run(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(fedunlearn.ConfigError, match="is no run folder"):
        fedunlearn.open_run(tmp_path / "empty")


def test_finished_comparisons_make_one_page(tmp_path):
    runs = [write_run(tmp_path / "one"), write_run(tmp_path / "two", partitioner="dirichlet")]
    page = fedunlearn.families(runs=runs, out=tmp_path / "page")
    assert page.kind == "families"
    assert set(page.to_frame().scenario) == {"one", "two"}
    assert page.report() == tmp_path / "page" / "families.html"
    assert "two" in page._repr_html_()
    assert isinstance(fedunlearn.open_run(page.path), fedunlearn.Families)


def test_an_audit_is_a_table_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(tmp_path / "cache"))
    made = fedunlearn.audit(
        SMALL, strategies=["no-t"], models=3, workers=1, out=tmp_path / "audit", data={"seed": 0}
    )
    table = made.to_frame()
    assert {"no-t", "retrain"} <= set(table.strategy)
    assert made.kind == "audit"
    assert made.report().is_file()
    assert isinstance(fedunlearn.open_run(made.path), fedunlearn.Audit)
    measured = table.dropna(subset=["value"]).metric.iloc[0]
    axes = made.plot(measured, ax=Figure().subplots())
    assert "no-t" in [label.get_text() for label in axes.get_yticklabels()]
    assert "<table" in made._repr_html_()
    made.report().write_text("of an earlier one")
    assert made.resume()
    assert made.report().read_text() != "of an earlier one"
    (made.path / "audit.json").unlink()  # broken off before there were results
    begun = fedunlearn.open_run(made.path)
    assert begun.kind == "audit"
    assert begun.resume()
    assert set(begun.to_frame().strategy) == set(table.strategy)


def test_a_strategy_of_a_script_is_taken_as_it_is(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(
        textwrap.dedent(f"""
            import fedunlearn
            from strategies.local_model.no_t import NoT

            class MyFirst(NoT):
                "One."

            class MySecond(NoT):
                "Two."

            if __name__ == "__main__":
                found = fedunlearn.compare({SMALL!r}, strategies=[MyFirst, MySecond])
                print(*found.to_frame().strategy)
        """)
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split()[-2:] == ["my-first", "my-second"]
    assert done.stderr == ""


def test_importing_it_loads_nothing_heavy():
    code = (
        "import fedunlearn, sys; "
        "print([m for m in ('flwr', 'torch', 'pandas', 'numpy', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_public_name_is_there():
    for name in fedunlearn.__all__:
        assert getattr(fedunlearn, name).__doc__
    assert set(fedunlearn.__all__) <= set(dir(fedunlearn))
    assert fedunlearn.__version__
    assert "fed-eraser" in fedunlearn.list_strategies("client")
    assert "ridge" not in fedunlearn.list_strategies("task")
    assert "digits" in fedunlearn.list_datasets()
    assert "mlp" in fedunlearn.list_models()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fedunlearn.nothing  # noqa: B018


def test_a_run_is_asked_goes_on_and_is_verified(tmp_path):
    made = fedunlearn.run(
        {"strategy": "no-t", "data": {"clients": 4, "limit": 80}},
        rounds=1,
        recovery_rounds=1,
        engine={"grid": "local"},
        out=tmp_path / "run",
    )
    assert not made.resume()
    asked = fedunlearn.Request("client", clients=(3,), id="leave")
    assert made.ask(asked)
    assert not made.ask(asked)
    with pytest.raises(fedunlearn.RequestError, match="leave"):
        made.ask(fedunlearn.Request("client", clients=(2,), id="leave"))
    ticks = []
    assert made.resume(progress=ticks.append)
    assert ticks
    assert made.requests().set_index("id").state["leave"] == "fulfilled"
    assert made.verify() == []
    (made.path / "ledger.head").unlink()
    assert any("ledger" in line for line in made.verify())
