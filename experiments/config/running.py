"""The tables that say how a federation is run: where, what is kept, guarded and promised."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from experiments.config.fields import Count, Positive, Share, Table, listed

__all__ = [
    "EngineConfig",
    "GuardConfig",
    "HistoryConfig",
    "LedgerConfig",
    "PromiseConfig",
    "StartConfig",
    "StopConfig",
    "TrackConfig",
]


class EngineConfig(Table):
    """How the federation is carried out; no setting here changes a result."""

    grid: Literal["ray", "local", "stacked", "auto"] = Field(
        default="ray",
        description="ray for worker processes; local for this process alone, stacked likewise with "
        "small dense networks trained side by side; auto for stacked where that works, else ray",
    )
    workers: Positive = Field(default=2, description="the number of worker processes")
    ray_address: str | None = Field(
        default=None, description="the address of an existing Ray cluster"
    )
    timeout_s: float = Field(
        default=600.0, gt=0, description="the longest wait for a round in seconds"
    )
    min_replies: Share = Field(default=0.5, description="the share of clients that must answer")
    min_clients: Count = Field(
        default=0,
        description="so many clients must be there when a run begins, besides that share of them",
    )
    gpus_per_worker: float | None = Field(
        default=None,
        ge=0,
        description="the share of a GPU per worker, chosen by the device if left out",
    )


class HistoryConfig(Table):
    """How the history of learning is kept."""

    interval: Positive = Field(default=1, description="keep models and updates of every n-th round")
    dtype: Literal["float32", "float16"] = Field(
        default="float32", description="float32 or float16"
    )
    encrypt: bool = Field(
        default=False,
        description="whether models and updates are encrypted where a run keeps them; what a round "
        "has of replies beyond 32 MB waits in an unnamed file below TMPDIR, which is not",
    )
    keys: str | None = Field(
        default=None,
        description="the folder of the keys, outside the run folder; the user's data if left out",
    )


class StopConfig(Table):
    """When retraining and recovery end before their budget of rounds is spent."""

    tolerance: float | None = Field(
        default=None,
        ge=0,
        description="the share by which the training loss may exceed that before the request",
    )
    examples: Count = Field(
        default=0,
        description="so many examples that all but retrain may unlearn and recover with; 0: any",
    )


class GuardConfig(Table):
    """What stands between requests, answers and everyone else; off unless asked for."""

    commitment: bool = Field(
        default=False, description="whether clients commit themselves to their samples at the start"
    )
    aggregate: Literal["mean", "median", "trimmed-mean", "norm-bound"] = Field(
        default="mean", description="how updates are combined while unlearning and recovering"
    )
    trim: float = Field(
        default=0.2, ge=0, lt=0.5, description="the share that trimmed-mean leaves out on each side"
    )
    norm_factor: float = Field(
        default=2.0, gt=0, description="the length that norm-bound allows, in lengths of learning"
    )
    max_class_drop: Share | None = Field(
        default=None, description="hold an answer that takes a class's accuracy farther down"
    )
    max_total_drop: Share | None = Field(
        default=None,
        description="hold an answer that leaves a class's accuracy farther below its best so far",
    )
    max_step: float | None = Field(
        default=None, gt=0, description="the farthest an approximate answer may move, in lengths"
    )
    max_trigger: Share | None = Field(
        default=None,
        description="hold an answer that raises a known trigger's success by more",
    )
    canaries: Share = Field(
        default=0.5, description="the share of the test examples that the guard looks at"
    )
    duplicates: bool = Field(
        default=False, description="whether copies of the forgotten elsewhere are looked for"
    )
    length_factor: float = Field(
        default=10.0,
        ge=0,
        description="how many medians of its round an update may be long; 0: any length",
    )
    count_cap: float = Field(
        default=3.0,
        ge=0,
        description="a client nobody registered counts as so many medians of examples; 0: no cap",
    )
    batch: Positive = Field(
        default=1, description="how many requests are published together; fewer wait"
    )
    max_requests: Count = Field(
        default=0,
        description="how many requests of one client are begun within window_s; more wait; 0: any",
    )
    window_s: float = Field(
        default=3600.0, gt=0, description="the window of max_requests, in seconds"
    )


class StartConfig(Table):
    """A model that was trained elsewhere; a run then begins from it, without a history."""

    model: str | None = Field(
        default=None, description="a safetensors file with the model's arrays"
    )
    history: str | None = Field(
        default=None, description="how it was trained, a folder that import-history made"
    )

    @model_validator(mode="after")
    def _history_has_a_model(self) -> StartConfig:
        if self.history is not None and self.model is None:
            raise ValueError("history needs model; import-history writes both")
        return self


class TrackConfig(Table):
    """Live curves of every round; each tracker is a library of its own, ``fedunlearn[track]``."""

    to: Annotated[
        tuple[Literal["tensorboard", "mlflow", "wandb"], ...], BeforeValidator(listed)
    ] = Field(default=(), description="a list of tensorboard, mlflow and wandb")
    project: str = Field(
        default="fedunlearn", min_length=1, description="the project or experiment's name there"
    )
    uri: str | None = Field(
        default=None, description="MLflow's tracking server; SQLite in the run folder if left out"
    )


class PromiseConfig(Table):
    """By when a request must be fulfilled."""

    due_days: float = Field(
        default=30.0,
        gt=0,
        description="the days until a request is due; a month, Art. 12(3) GDPR",
    )
    extension_days: float = Field(
        default=60.0,
        ge=0,
        description="the days by which `fedunlearn extend` may put a due date off in all; two "
        "further months, Art. 12(3) GDPR",
    )


class LedgerConfig(Table):
    """Where the ledger's signed heads are kept beside the run folder."""

    anchor: str | None = Field(
        default=None, description="a file elsewhere that gets a line with every signed head"
    )
