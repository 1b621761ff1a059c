"""The trackers themselves; each library is imported when its tracker is made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from experiments.config.schema import TrackConfig

__all__ = ["MLflow", "TensorBoard", "WeightsAndBiases"]

Line = tuple[str, int]


def _name(line: Line) -> str:
    strategy, seed = line
    return f"{strategy}-seed-{seed}"


class TensorBoard:
    """Event files below ``track/tensorboard``, a folder per strategy and seed."""

    def __init__(self, config: TrackConfig, folder: Path) -> None:
        self._root = folder / "track" / "tensorboard"
        self._kind: Any = import_module("torch.utils.tensorboard").SummaryWriter
        self._writers: dict[Line, Any] = {}

    def _of(self, line: Line) -> Any:
        if line not in self._writers:
            self._writers[line] = self._kind(str(self._root / _name(line)))
        return self._writers[line]

    def point(self, line: Line, step: int, values: Mapping[str, float]) -> None:
        """Add a point to the curves of a line."""
        for name, value in values.items():
            self._of(line).add_scalar(name, value, step)
        self._of(line).flush()

    def result(self, line: Line, values: Mapping[str, float]) -> None:
        """Take the final numbers of a line."""
        for name, value in values.items():
            self._of(line).add_scalar(f"result/{name}", value, 0)

    def close(self, report: Path | None) -> None:
        """Name the report and write everything."""
        for writer in self._writers.values():
            if report is not None:
                writer.add_text("report", str(report))
            writer.close()


class MLflow:
    """A run per strategy and seed, in SQLite below ``track`` or where ``track.uri`` says."""

    def __init__(self, config: TrackConfig, folder: Path) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        root = (folder / "track").absolute()
        root.mkdir(exist_ok=True)
        mlflow: Any = import_module("mlflow")
        # Its store of plain files is refused by now; SQLite is what it recommends.
        self._client = mlflow.MlflowClient(config.uri or f"sqlite:///{root / 'mlflow.sqlite'}")
        found = self._client.get_experiment_by_name(config.project)
        place = None if config.uri else (root / "mlflow").as_uri()
        self._experiment = (
            self._client.create_experiment(config.project, artifact_location=place)
            if found is None
            else found.experiment_id
        )
        self._folder = folder
        self._runs: dict[Line, str] = {}

    def _of(self, line: Line) -> str:
        if line not in self._runs:
            tags = {"strategy": line[0], "seed": str(line[1]), "folder": str(self._folder)}
            made = self._client.create_run(self._experiment, run_name=_name(line), tags=tags)
            self._runs[line] = made.info.run_id
        return self._runs[line]

    def point(self, line: Line, step: int, values: Mapping[str, float]) -> None:
        """Add a point to the curves of a line."""
        for name, value in values.items():
            self._client.log_metric(self._of(line), name, value, step=step)

    def result(self, line: Line, values: Mapping[str, float]) -> None:
        """Take the final numbers of a line."""
        for name, value in values.items():
            self._client.log_metric(self._of(line), f"result_{name}", value)

    def close(self, report: Path | None) -> None:
        """Keep the report beside every run, and end them."""
        for run in self._runs.values():
            if report is not None:
                self._client.log_artifact(run, str(report))
            self._client.set_terminated(run)


class WeightsAndBiases:
    """A run per strategy and seed, offline below ``track`` unless ``WANDB_MODE`` says otherwise."""

    def __init__(self, config: TrackConfig, folder: Path) -> None:
        self._wandb: Any = import_module("wandb")
        self._config, self._root = config, folder / "track"
        self._root.mkdir(exist_ok=True)
        self._group = folder.name
        self._runs: dict[Line, Any] = {}

    def _of(self, line: Line) -> Any:
        if line not in self._runs:
            self._runs[line] = self._wandb.init(
                project=self._config.project,
                name=_name(line),
                group=self._group,
                dir=str(self._root),
                mode=os.environ.get("WANDB_MODE", "offline"),
                reinit="create_new",
                settings=self._wandb.Settings(silent=True, console="off"),
            )
        return self._runs[line]

    def point(self, line: Line, step: int, values: Mapping[str, float]) -> None:
        """Add a point to the curves of a line."""
        self._of(line).log(dict(values), step=step)

    def result(self, line: Line, values: Mapping[str, float]) -> None:
        """Take the final numbers of a line."""
        self._of(line).summary.update({f"result/{name}": value for name, value in values.items()})

    def close(self, report: Path | None) -> None:
        """Keep the report as an artefact of every run, and end them."""
        for run in self._runs.values():
            if report is not None:
                artefact = self._wandb.Artifact(f"report-{self._group}", type="report")
                artefact.add_file(str(report))
                run.log_artifact(artefact)
            run.finish()
