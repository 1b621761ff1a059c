"""Live curves, written by the real libraries offline and read back."""

import time
from importlib.util import find_spec

import pytest

import fedunlearn
from experiments.config.schema import TrackConfig
from experiments.runs.progress import Tick
from experiments.tracking import live
from tests.experiments.api.test_run import SMALL

needs = {
    name: pytest.mark.skipif(find_spec(name) is None, reason=f"needs pip install {name}")
    for name in ("tensorboard", "mlflow", "wandb")
}
# Warnings of the trackers' own dependencies are theirs.
pytestmark = pytest.mark.filterwarnings("ignore")


def compared(path, name):
    return fedunlearn.compare(SMALL, strategies=["no-t"], out=path, track={"to": [name]})


@needs["tensorboard"]
def test_tensorboard_reads_back_what_was_measured(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = compared(tmp_path / "run", "tensorboard")
    events = EventAccumulator(str(run.path / "track" / "tensorboard" / "no-t-seed-0"))
    events.Reload()
    points = run.timeline()
    own = points[points.strategy == "no-t"]
    read = events.Scalars("backdoor_success")
    assert [event.step for event in read] == own["round"].tolist()
    assert [event.value for event in read] == pytest.approx(own.backdoor_success.tolist())
    assert len(events.Scalars("request_served")) == 1
    table = run.to_frame().set_index("strategy")
    final = events.Scalars("result/test_accuracy")[-1].value
    assert final == pytest.approx(table.test_accuracy["no-t"])


@needs["mlflow"]
def test_mlflow_reads_back_what_was_measured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = compared(tmp_path / "run", "mlflow")
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{run.path / 'track' / 'mlflow.sqlite'}")
    experiment = client.get_experiment_by_name("fedunlearn")
    runs = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {f"{name}-seed-0" for name in run.to_frame().strategy}
    own = runs["no-t-seed-0"]
    history = client.get_metric_history(own.info.run_id, "test_accuracy")
    points = run.timeline()
    assert [m.step for m in history] == points[points.strategy == "no-t"]["round"].tolist()
    assert own.info.status == "FINISHED"
    assert [one.path for one in client.list_artifacts(own.info.run_id)] == ["report.html"]
    assert not (tmp_path / "mlruns").exists()


@needs["wandb"]
def test_wandb_keeps_a_run_per_strategy_offline(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = compared(tmp_path / "run", "wandb")
    kept = sorted((run.path / "track" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(kept) == len(run.to_frame())
    until = time.monotonic() + 30  # its own process writes the last of it after finish() returned
    while time.monotonic() < until and any(path.stat().st_size < 500 for path in kept):
        time.sleep(0.1)
    assert all(b"test_accuracy" in path.read_bytes() for path in kept)


class Broken:
    def point(self, line, step, values):
        raise OSError("disk full")


def test_a_tracker_that_fails_never_ends_a_run(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(live, "_made", lambda *_: Broken())
    told = []
    with live.tracked(TrackConfig(to=("wandb",)), tmp_path, told.append) as tell:
        for number in (1, 2):
            tell(Tick("no-t", 0, "recover", number, number, 2, 0.5, {"test_accuracy": 0.5}))
    assert len(told) == 2
    assert caplog.text.count("is left out from here on: disk full") == 1


def test_a_missing_library_is_said_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(live.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(fedunlearn.ConfigError, match=r"pip install 'fedunlearn\[track\]'"):
        live.check(TrackConfig(to=("mlflow",)))
    with pytest.raises(fedunlearn.ConfigError, match="track"):
        fedunlearn.load_config(track={"to": ["comet"]})
