"""The settings of an experiment: frozen tables with types, ranges and defaults.

:mod:`experiments.config.loading` reads them from files and turns mistakes into words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from experiments.config.fields import (
    Count,
    Decay,
    Ids,
    LearningRate,
    Momentum,
    Names,
    OpenTable,
    Positive,
    Records,
    Samples,
    Share,
    Table,
    listed,
)
from unlearning.errors import RequestError
from unlearning.request import Request, Scope

__all__ = [
    "Config",
    "DataConfig",
    "EngineConfig",
    "GuardConfig",
    "HistoryConfig",
    "LedgerConfig",
    "MarkerConfig",
    "ModelConfig",
    "PromiseConfig",
    "RecoveryConfig",
    "RequestConfig",
    "StartConfig",
    "StopConfig",
    "TrackConfig",
    "TrainConfig",
    "TrunkConfig",
    "alias_of",
]

FindRecords = Callable[[Sequence[str], Sequence[int]], Mapping[int, tuple[int, ...]]]

# Between two words of a class name: before a capital that follows a small letter or begins a word.
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class DataConfig(OpenTable):
    """Which data, and how the clients share it; further keys are the partitioner's parameters."""

    name: str = Field(default="digits", description="a data set, npz:PATH or module:function")
    root: str | None = Field(default=None, description="the folder that holds the data set's files")
    download: bool = Field(default=False, description="whether missing files may be fetched")
    clients: Positive | None = Field(default=None, description="the number of clients")
    partitioner: str = Field(default="iid", description="a partitioner of flwr-datasets")
    held_out: float = Field(
        default=0.2, ge=0, lt=1, description="the share of each client's examples never trained on"
    )
    public: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="the share of the training examples that the server gets, without labels",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(
        default=None,
        description="fixes who holds what and where the marker lies; the config's seed if left out",
    )
    limit: Positive | None = Field(default=None, description="use only so many training examples")
    test_limit: Positive | None = Field(default=None, description="use only so many test examples")
    tasks_per_client: Positive | None = Field(
        default=None, description="how many of the data set's tasks a client holds, all if left out"
    )
    shape: Ids = Field(default=(), description="remote data: the shape of one example")
    classes: Positive | None = Field(default=None, description="remote data: the number of labels")
    members: Ids = Field(
        default=(), description="remote data: the ids of the clients, 0 to clients - 1 if left out"
    )
    rows: Ids = Field(
        default=(), description="remote data: training examples of the members, as far as known"
    )
    test: str | None = Field(
        default=None, description="remote data: an .npz with x and y that the server tests with"
    )

    @model_validator(mode="before")
    @classmethod
    def _ten_clients(cls, raw: Any) -> Any:
        # A natural id brings its own number of clients; every other partitioner needs one.
        if isinstance(raw, Mapping) and "natural-id" not in str(raw.get("partitioner", "")):
            return {"clients": 10, **raw}
        return raw


class TrunkConfig(OpenTable):
    """A frozen network whose last hidden layer is what a model sees; further keys: its parameters.

    It must have been made without the data that may have to be forgotten.
    """

    name: str = Field(default="cnn", description="a network or module:function")
    file: str | None = Field(
        default=None, description="a safetensors file of it, trained on other data; none: random"
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="of its random values")


class ModelConfig(OpenTable):
    """Which model; further keys are its parameters."""

    name: str = Field(default="mlp", description="a model or module:function")
    trunk: TrunkConfig | None = Field(
        default=None, description="a frozen network in front of a model that is none"
    )


class TrainConfig(Table):
    """How a client trains in a learning round."""

    local_epochs: Positive = Field(default=1, description="passes over the client's data per round")
    batch_size: Positive = Field(default=32, description="examples per step")
    learning_rate: LearningRate = Field(default=0.1, description="the step size of SGD")
    rate_decay: Share = Field(
        default=1.0, description="what the step size is multiplied by after every round"
    )
    momentum: Momentum = Field(default=0.0, description="the momentum of SGD")
    weight_decay: Decay = Field(default=0.0, description="the L2 penalty of SGD")
    max_steps: Count = Field(default=0, description="the most steps per round, 0 for no limit")
    stable_steps: Count = Field(
        default=0,
        description="steps per round, each on examples drawn anew by keys; 0 for passes",
    )
    fraction: Share = Field(default=1.0, description="the share of clients that train in a round")


class RecoveryConfig(Table):
    """What differs from ``[train]`` in recovery rounds."""

    local_epochs: Positive | None = Field(default=None, description="passes over the client's data")
    batch_size: Positive | None = Field(default=None, description="examples per step")
    learning_rate: LearningRate | None = Field(default=None, description="the step size of SGD")
    rate_decay: Share | None = Field(
        default=None, description="what the step size is multiplied by after every round"
    )
    momentum: Momentum | None = Field(default=None, description="the momentum of SGD")
    weight_decay: Decay | None = Field(default=None, description="the L2 penalty of SGD")
    max_steps: Count | None = Field(
        default=None, description="the most steps per round, 0 for no limit"
    )
    fraction: Share | None = Field(default=None, description="the share of clients that train")


class MarkerConfig(Table):
    """Evidence planted in one client's data before learning, to see whether it is forgotten."""

    kind: Literal["backdoor", "label-flip", "noise"] = Field(
        default="backdoor", description="backdoor, label-flip or noise"
    )
    client: Count = Field(description="the client whose data is marked")
    fraction: Share = Field(default=0.8, description="the share of its examples that is marked")
    label: Count = Field(default=0, description="the label that the backdoor leads to")
    size: Positive = Field(default=3, description="the width of the trigger in pixels or columns")
    value: float = Field(default=2.0, description="the value of the trigger; white is 1")
    sigma: float = Field(
        default=1.0, gt=0, description="the standard deviation of the noise; white is 1"
    )


class RequestConfig(Table):
    """What is to be forgotten, and when."""

    scope: Literal["client", "sample", "class", "task", "feature"] = Field(
        description="client, sample, class, task or feature"
    )
    clients: Ids = Field(default=(), description="a list of client ids")
    samples: Samples = Field(
        default=(), description="a list of positions, a table of client to list, or 'marked'"
    )
    records: Records = Field(
        default=(), description="a list of the records' own ids (the data's column id)"
    )
    classes: Ids = Field(default=(), description="a list of labels")
    tasks: Names = Field(default=(), description="a list of task names")
    features: Ids = Field(
        default=(), description="a list of positions in an example, counted over all its axes"
    )
    at_round: Count | None = Field(
        default=None, description="the round after which it is served, the last one if left out"
    )
    asked_by: str = Field(default="operator", description="who asks, for the ledger")
    id: str | None = Field(default=None, description="a name that no other request bears")

    def to_request(
        self,
        default_id: str,
        rounds: int,
        marked: Mapping[int, Sequence[int]],
        find: FindRecords | None = None,
    ) -> Request:
        """Return the request in the words of the domain.

        Parameters
        ----------
        default_id : str
            The id if the table names none.
        rounds : int
            When to serve it if the table does not say.
        marked : mapping of int to sequence of int
            What ``samples = "marked"`` stands for: client id to positions.
        find : callable or None
            ``find(records, clients)`` returns the positions of records, by client; None: they are
            not looked up, only the shape of the request is checked.

        Raises
        ------
        RequestError
            If the fields do not fit the scope.
        """
        clients, samples = self.clients, dict[int, tuple[int, ...]]()
        if self.samples == "marked":
            clients, samples = (), {client: tuple(found) for client, found in marked.items()}
        elif self.records:
            samples = {0: (0,)} if find is None else dict(find(self.records, clients))
            clients = ()
        elif isinstance(self.samples, dict):
            samples = self.samples
        elif self.samples:
            # A bare list belongs to the one client beside it.
            samples = {clients[0]: self.samples}
            clients = () if self.scope == "sample" else clients
        return Request(
            scope=Scope(self.scope),
            clients=clients,
            samples=samples,
            classes=self.classes,
            tasks=self.tasks,
            features=self.features,
            at_round=rounds if self.at_round is None else self.at_round,
            asked_by=self.asked_by,
            id=self.id or default_id,
            records=self.records,
        )


class EngineConfig(Table):
    """How the federation is carried out; no setting here changes a result."""

    grid: Literal["ray", "local"] = Field(
        default="ray", description="ray for worker processes, local for this process alone"
    )
    workers: Positive = Field(default=2, description="the number of worker processes")
    ray_address: str | None = Field(
        default=None, description="the address of an existing Ray cluster"
    )
    timeout_s: float = Field(
        default=600.0, gt=0, description="the longest wait for a round in seconds"
    )
    min_replies: Share = Field(default=0.5, description="the share of clients that must answer")
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
        default=False, description="whether models and updates are encrypted where a run keeps them"
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


Tracker = Literal["tensorboard", "mlflow", "wandb"]


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


class LedgerConfig(Table):
    """Where the ledger's signed heads are kept beside the run folder."""

    anchor: str | None = Field(
        default=None, description="a file elsewhere that gets a line with every signed head"
    )


class Config(Table):
    """All settings of one experiment."""

    seed: int = Field(default=0, ge=0, lt=2**63, description="a whole number from 0")
    strategy: str = Field(
        default="fed-eraser", min_length=1, description="an alias or module:Class"
    )
    strategies: Names = Field(default=(), description="the strategies that a comparison runs")
    rounds: Positive = Field(default=20, description="the rounds of learning")
    recovery_rounds: Count = Field(default=5, description="the rounds after unlearning")
    device: str = Field(
        default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N"
    )
    options: dict[str, Any] = Field(default={}, description="a table of the strategy's options")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    start: StartConfig = StartConfig()
    train: TrainConfig = TrainConfig()
    recovery: RecoveryConfig = RecoveryConfig()
    stop: StopConfig = StopConfig()
    marker: MarkerConfig | None = Field(default=None, description="a table")
    requests: Annotated[tuple[RequestConfig, ...], BeforeValidator(listed)] = Field(
        default=(), description="a list of tables"
    )
    engine: EngineConfig = EngineConfig()
    history: HistoryConfig = HistoryConfig()
    guard: GuardConfig = GuardConfig()
    track: TrackConfig = TrackConfig()
    promise: PromiseConfig = PromiseConfig()
    ledger: LedgerConfig = LedgerConfig()

    @model_validator(mode="after")
    def _requests_make_sense(self) -> Config:
        marked = {self.marker.client: (0,)} if self.marker else {}
        seen: set[str] = set()
        for place, entry in enumerate(self.requests):
            key = f"requests.{place}"
            if entry.samples == "marked" and not marked:
                raise ValueError(
                    f"{key}.samples = 'marked' needs a [marker]; add one or name samples"
                )
            if entry.records and (entry.samples or entry.scope != "sample"):
                raise ValueError(
                    f"{key}.records names samples by their own ids: give scope = 'sample', and no "
                    "samples beside them"
                )
            if isinstance(entry.samples, tuple) and entry.samples and len(entry.clients) != 1:
                raise ValueError(
                    f"{key}.samples is a list but {key}.clients = {list(entry.clients)}; name the "
                    "one client it belongs to, or write a table such as {3 = [4, 8]}"
                )
            if (entry.at_round or 0) > self.rounds:
                raise ValueError(
                    f"{key}.at_round = {entry.at_round} lies after the last round (rounds = "
                    f"{self.rounds}); lower it, or leave it out to serve it after the last round"
                )
            try:
                request = entry.to_request(_default_id(place), self.rounds, marked)
            except RequestError as error:
                raise ValueError(f"{key}: {error}") from error
            if request.id in seen:
                raise ValueError(f"{key}.id = {request.id!r} is taken; choose another")
            seen.add(request.id)
        return self

    @property
    def recovery_train(self) -> TrainConfig:
        """How a client trains in a recovery round: ``[train]`` overridden by ``[recovery]``."""
        return self.train.model_copy(update=self.recovery.model_dump(exclude_none=True))

    @property
    def option_tables(self) -> tuple[str, ...]:
        """The strategies that have a table of their own under ``[options]``."""
        return tuple(key for key, value in self.options.items() if isinstance(value, dict))

    def options_for(self, strategy: str) -> dict[str, Any]:
        """Return the options of one strategy.

        Parameters
        ----------
        strategy : str
            Alias or ``module:Class``.

        Returns
        -------
        dict
            The keys of ``[options]`` itself if this is the configured strategy, then those of
            ``[options.<alias>]``, which win.
        """
        alias = alias_of(strategy)
        own = alias == alias_of(self.strategy)
        tables = self.option_tables
        plain = {k: v for k, v in self.options.items() if own and k not in tables}
        special = [self.options[name] for name in tables if alias_of(name) == alias]
        return {**plain, **{key: value for table in special for key, value in table.items()}}

    def domain_requests(
        self, marked: Mapping[int, Sequence[int]], find: FindRecords | None = None
    ) -> tuple[Request, ...]:
        """Return the scheduled requests in the words of the domain.

        Parameters
        ----------
        marked : mapping of int to sequence of int
            Client id to the positions that its marker planted.
        find : callable or None
            Looks records up by their own ids; see :meth:`RequestConfig.to_request`.
        """
        last = 0 if self.start.model else self.rounds
        return tuple(
            entry.to_request(_default_id(place), last, marked, find)
            for place, entry in enumerate(self.requests)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, defaults included, keys without a value left out."""
        return self.model_dump(mode="json", exclude_none=True)


def _default_id(place: int) -> str:
    # Fixed, so that starting again with the same config does not ask twice.
    return f"config-{place + 1}"


def alias_of(strategy: str) -> str:
    """Return the short name, that of the class: ``mine:MyStrategy`` is ``my-strategy``."""
    _, colon, name = strategy.partition(":")
    return _WORD.sub("-", name).lower() if colon else strategy
