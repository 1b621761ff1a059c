"""What a run left behind, as Python has it: tables, curves, requests, the model, the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.runs.folder import RunFolder
from unlearning.errors import ConfigError
from unlearning.packing import unpack_file

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from torch import nn

    from experiments.config.loading import Config
    from experiments.runs.progress import Observer
    from experiments.runs.results import FailedRow, Row
    from unlearning.arrays import Arrays
    from unlearning.records.commitment import Claim
    from unlearning.request import Request

__all__ = ["Audit", "Families", "Run", "opened"]


class Run:
    """A run or a comparison in its folder; everything is read from there when it is asked for.

    Parameters
    ----------
    path : path
        The run folder.

    Raises
    ------
    ConfigError
        If it is none.
    """

    def __init__(self, path: Path) -> None:
        self._folder = RunFolder.open(Path(path))

    @property
    def path(self) -> Path:
        """The folder."""
        return self._folder.path

    @property
    def kind(self) -> str:
        """``"run"``, ``"compare"``, ``"audit"`` or ``"families"``."""
        return self._folder.read_federation().kind

    @property
    def config(self) -> Config:
        """The resolved config."""
        from experiments.config.loading import from_mapping

        return from_mapping(self._folder.read_config(), str(self._folder.config))

    @property
    def state(self) -> str:
        """``"running"``, ``"finished"``, ``"failed"``, or ``"not begun"``."""
        found = self._folder.read_status()
        return "not begun" if found is None else found.state

    def to_frame(self) -> pd.DataFrame:
        """Return a row per strategy and seed; the columns of ``results.csv``.

        A strategy that failed has a row without numbers; the column ``failed`` says why. Of text,
        and after a request for features, further columns follow, one per measure, such as
        ``canary_exposure`` or ``sensitivity``.

        Raises
        ------
        ResultsError
            If the run has not finished.
        """
        import pandas as pd

        from experiments.runs.details import read_details
        from experiments.runs.results import Measured, by_measure, read_failed, read_results

        _, rows = read_results(self.path)
        found: list[Row | FailedRow] = [*rows, *read_failed(self.path)]
        table = pd.DataFrame(map(_line, found))
        details = read_details(self.path)
        measures: list[Measured] = [*details.text_measures, *details.feature_measures]
        for name, values in by_measure(measures).items():
            whose = zip(table.strategy, table.seed, strict=True)
            table[name] = [values.get(key, float("nan")) for key in whose]
        return table

    def timeline(self) -> pd.DataFrame:
        """Return a row per strategy, seed and round: phase, accuracies, backdoor success, seconds.

        ``round`` counts on from the start of learning, so the curve of a strategy begins where
        that of ``original`` ends.
        """
        import pandas as pd

        from experiments.runs.details import Point, read_details

        points = read_details(self.path).timeline
        return pd.DataFrame([point.model_dump() for point in points], columns=_columns(Point))

    def requests(self) -> pd.DataFrame:
        """Return a row per request and branch of the ledger: what is asked, and its fate."""
        import pandas as pd

        from experiments.runs.inspection import overview

        columns = ["id", "text", "at_round", "branch", "state", "reason"]
        rows = [
            (request.id, request.text, request.at_round, branch, state, request.reasons.get(branch))
            for request in overview(self._folder).requests
            for branch, state in request.states.items()
        ]
        return pd.DataFrame(rows, columns=columns)

    def plot(
        self,
        metric: str = "test_accuracy",
        *,
        against: str = "round",
        strategies: Iterable[str] | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw one measure of every strategy and return Matplotlib's axes.

        Parameters
        ----------
        metric : str
            A column of :meth:`timeline`, or with ``against`` a column of :meth:`to_frame`.
        against : str
            ``"round"`` for curves (mean over the seeds, with their range), or a column of
            :meth:`to_frame`, for example ``"examples"``, for a point per strategy and seed.
        strategies : iterable of str, optional
            Which; default: all.
        ax : Axes, optional
            Where to draw; default: new ones.

        Raises
        ------
        ConfigError
            If a column or a strategy is unknown.
        """
        from experiments.api.pictures import curves, points

        if against == "round":
            return curves(self.timeline(), metric, strategies, ax)
        return points(self.to_frame(), metric, against, strategies, ax)

    def report(self, *, again: bool = False) -> Path:
        """Return the path of the report; it is made if it is not there, or ``again`` is True.

        Raises
        ------
        ResultsError
            If the run has not finished.
        """
        page = self._folder.report
        if again or not page.is_file():
            from experiments.reporting.report import render

            page = render(self.path)
        return page

    def arrays(self) -> Arrays:
        """Return the final model's named arrays.

        Raises
        ------
        ConfigError
            If the run keeps no model: it has not finished, or is a comparison.
        """
        if not self._folder.model.is_file():
            raise ConfigError(
                f"{self.path} holds no model: a comparison keeps none, a run writes it at its end"
            )
        return unpack_file(self._folder.model)

    def model(self) -> nn.Module:
        """Return the final model as a network, in evaluation mode, on the CPU.

        Raises
        ------
        ConfigError
            If the run keeps no model, or it is no network; :meth:`arrays` and :meth:`predict` take
            any model.
        """
        from experiments.models import networks

        arrays = self.arrays()
        network = networks.load(self._task().fresh_model(0), arrays)
        return network.eval()

    def predict(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return the final model's probabilities for examples, shape (n, number of classes).

        Parameters
        ----------
        x : array, shape (n, ...)
            Examples as the data set has them.

        Raises
        ------
        ConfigError
            If the run keeps no model.
        """
        import numpy as np

        found: NDArray[Any] = self._task().predict(self.arrays(), np.asarray(x, np.float32))
        return found

    def ask(self, request: Request, *, claim: Claim | None = None) -> bool:
        """Ask a run to forget; it is served before its next round, or by :meth:`resume`.

        Parameters
        ----------
        request : Request
            For example ``Request("client", clients=(3,))``.
        claim : Claim, optional
            The opened samples, where the clients committed themselves to theirs.

        Returns
        -------
        bool
            False if this very request was recorded before: nothing is changed then.

        Raises
        ------
        RequestError
            If the run cannot be asked this, or knows another request by its id.
        """
        from experiments.runs.admission import admit

        return admit(self._folder, request, claim)

    def resume(self, *, accept_change: bool = False, progress: bool | Observer = False) -> bool:
        """Go on with what was interrupted, and serve what was asked since.

        Parameters
        ----------
        accept_change : bool
            Go on though config or code have changed; the ledger says so.
        progress : bool or callable
            As for :func:`fedunlearn.run`.

        Returns
        -------
        bool
            False where it is finished and nothing waits in it.

        Raises
        ------
        FedUnlearnError
            If it was changed, another process is at work in it, or it cannot go on.
        """
        from experiments.api.carrying import gone_on

        return gone_on(self._folder, progress, accept_change=accept_change)

    def verify(self) -> list[str]:
        """Return what is wrong with the ledger, the history's files and the model; only reads.

        An empty list says that all of it is as it was written.
        """
        from experiments.runs.inspection import verify

        return list(verify(self._folder).problems)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {self.state})"

    def _repr_html_(self) -> str:
        from experiments.api.pictures import scorecard

        return scorecard(self)

    def _task(self) -> Any:
        from experiments.federation.task import Scenario, task

        return task(Scenario.of(self.config))


class Audit(Run):
    """An audit in its folder."""

    @property
    def kind(self) -> str:
        """``"audit"``."""
        return "audit"

    def to_frame(self) -> pd.DataFrame:
        """Return a row per strategy (or control) and metric, with its interval and verdict.

        Raises
        ------
        ResultsError
            If the audit has not finished.
        """
        import pandas as pd

        from experiments.audit.results import read_audit

        found = read_audit(self.path)
        metrics = {metric.id: metric for metric in found.metrics}
        return pd.DataFrame(
            {
                "strategy": row.strategy,
                "kind": row.kind,
                "guarantee": row.guarantee,
                "verdict": row.verdict,
                "metric": metrics[name].name if name in metrics else name,
                "trusted": metrics[name].card.passes if name in metrics else None,
                **_floats(
                    {
                        key: getattr(estimate, key)
                        for key in (
                            "value",
                            "low",
                            "high",
                            "calibrated",
                            "calibrated_low",
                            "calibrated_high",
                            "p",
                            "p_holm",
                        )
                    }
                ),
                "models": estimate.n,
            }
            for row in found.rows
            for name, estimate in row.metrics.items()
        )

    def plot(
        self,
        metric: str = "lira_auc",
        *,
        against: str = "strategy",
        strategies: Iterable[str] | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw one metric of every row with its 95 % interval; ``against`` is ``"strategy"``.

        Raises
        ------
        ConfigError
            If the metric or a strategy is unknown.
        """
        from experiments.api.pictures import intervals

        return intervals(self.to_frame(), metric, strategies, ax)


class Families(Run):
    """Several comparisons on one page, in their folder."""

    def __init__(self, path: Path) -> None:
        self._folder = RunFolder(Path(path))
        if not (self.path / "families.csv").is_file():
            raise ConfigError(
                f"{path} holds no families.csv; `fedunlearn families --out {path}` writes it"
            )

    @property
    def kind(self) -> str:
        """``"families"``."""
        return "families"

    @property
    def state(self) -> str:
        """``"finished"``: the page is written at the end."""
        return "finished"

    @property
    def runs(self) -> dict[str, Run]:
        """The scenarios that were run here, by their names."""
        found = sorted(path.parent for path in self.path.glob("*/results.json"))
        return {path.name: Run(path) for path in found}

    def to_frame(self) -> pd.DataFrame:
        """Return a row per scenario, strategy and seed: the content of ``families.csv``."""
        import pandas as pd

        return pd.read_csv(self.path / "families.csv")

    def timeline(self) -> pd.DataFrame:
        """Return the timelines of all scenarios, each named in the column ``scenario``."""
        return self._joined({name: run.timeline() for name, run in self.runs.items()})

    def requests(self) -> pd.DataFrame:
        """Return the requests of all scenarios, each named in the column ``scenario``."""
        return self._joined({name: run.requests() for name, run in self.runs.items()})

    def report(self, *, again: bool = False) -> Path:
        """Return the path of the page; ``again`` makes it anew of the scenarios that lie here."""
        page = self.path / "families.html"
        if again or not page.is_file():
            from experiments.families.across import render_across

            page = render_across([run.path for run in self.runs.values()], page)
        return page

    def arrays(self) -> Arrays:
        """Raise: a comparison keeps no model.

        Raises
        ------
        ConfigError
            Always.
        """
        raise ConfigError(f"{self.path} holds no model: a comparison keeps none")

    def _joined(self, frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        import pandas as pd

        if not frames:
            raise ConfigError(f"{self.path} holds no scenario of its own; open their own folders")
        named = [frame.assign(scenario=name) for name, frame in frames.items()]
        return pd.concat(named, ignore_index=True)


def opened(path: Path) -> Run | Audit | Families:
    """Return what lies in a folder, by its files.

    Raises
    ------
    ConfigError
        If nothing of ours does.
    """
    if (path / "families.csv").is_file():
        return Families(path)
    if (path / "results.json").is_file():
        return Run(path)
    return Audit(path) if (path / "audit.json").is_file() or _is_begun_audit(path) else Run(path)


def _is_begun_audit(path: Path) -> bool:
    """Return whether an audit was begun in a folder; one that was broken off has no results."""
    from experiments.runs.intent import AUDIT, Intent

    try:
        return Intent.read(path).kind == AUDIT
    except ConfigError:
        return False


def _line(row: Row | FailedRow) -> dict[str, object]:
    told: Any = row.to_json()
    return {
        **{name: told[name] for name in ("strategy", "seed", "scope", "guarantee")},
        **_floats(told["metrics"]),
        **_floats(told["cost"]),
        "model_digest": told["model_digest"],
        "failed": told.get("failed"),
    }


def _columns(record: Any) -> list[str]:
    return list(record.model_fields)


def _floats(values: Mapping[str, float | None]) -> dict[str, float]:
    """Return numbers with NaN where nothing was measured, as a table has it."""
    return {name: float("nan") if value is None else float(value) for name, value in values.items()}
