"""The settings of an experiment: frozen tables with types, ranges and defaults.

:mod:`experiments.config.learning` holds the tables of what is learned,
:mod:`experiments.config.running` those of how it is run.
:mod:`experiments.config.loading` reads them from files and turns mistakes into words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from experiments.config.fields import (
    Count,
    Features,
    Ids,
    Names,
    Positive,
    Records,
    Samples,
    Table,
    listed,
)
from experiments.config.learning import (
    DataConfig,
    MarkerConfig,
    ModelConfig,
    OwnRecovery,
    RecoveryConfig,
    TrainConfig,
    TrunkConfig,
)
from experiments.config.running import (
    EngineConfig,
    GuardConfig,
    HistoryConfig,
    LedgerConfig,
    PromiseConfig,
    StartConfig,
    StopConfig,
    TrackConfig,
)
from unlearning.columns import Columns, Named
from unlearning.errors import RequestError
from unlearning.request import Request, Scope, check_id

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

_OWN = "recovery"  # the table among a strategy's options that is no option of it

# Between two words of a class name: before a capital that follows a small letter or begins a word.
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


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
    features: Features = Field(
        default=(),
        description="a list of column names, of positions counted over all axes of an example, of "
        "regions such as '0:2x3:8', a mask in a file .npy, or 'marked'",
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
        columns: Columns | None = None,
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
        columns : Columns or None
            What the words of ``features`` mean; None: that is not known yet, and any position
            stands for them.

        Raises
        ------
        RequestError
            If the fields do not fit the scope.
        """
        named = Named((0,) if self.features else ())
        if columns is not None:
            named = columns.find(self.features)
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
            features=named.positions,
            called=named.called,
            at_round=rounds if self.at_round is None else self.at_round,
            asked_by=self.asked_by,
            id=default_id if self.id is None else self.id,
            records=self.records,
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
    def _own_recoveries_make_sense(self) -> Config:
        if _OWN in self.options:
            _check_own_recovery(f"options.{_OWN}", self.options[_OWN])
        for name in self.option_tables:
            if _OWN in self.options[name]:
                _check_own_recovery(f"options.{name}.{_OWN}", self.options[name][_OWN])
        return self

    @model_validator(mode="after")
    def _requests_make_sense(self) -> Config:
        marked = {self.marker.client or 0: (0,)} if self.marker else {}
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
                if entry.id is not None:
                    check_id(entry.id)
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
        own = self.recovery.model_dump(exclude_none=True, exclude={"server_momentum"})
        return self.train.model_copy(update=own)

    @property
    def option_tables(self) -> tuple[str, ...]:
        """The strategies that have a table of their own under ``[options]``."""
        tables = (key for key, value in self.options.items() if isinstance(value, dict))
        return tuple(key for key in tables if key != _OWN)

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
        return {key: value for key, value in self._given(strategy).items() if key != _OWN}

    def recovering(self, strategy: str) -> Config:
        """Return the config with the recovery of one strategy in the place of everyone's.

        Parameters
        ----------
        strategy : str
            Alias or ``module:Class``; what ``[options.<alias>.recovery]`` says replaces keys of
            ``[recovery]``, and its ``rounds`` ``recovery_rounds``.
        """
        own = dict(self._given(strategy).get(_OWN, {}))
        rounds = own.pop("rounds", self.recovery_rounds)
        recovery = RecoveryConfig(**{**self.recovery.model_dump(), **own})
        return self.model_copy(update={"recovery": recovery, "recovery_rounds": rounds})

    def _given(self, strategy: str) -> dict[str, Any]:
        alias = alias_of(strategy)
        own = alias == alias_of(self.strategy)
        tables = self.option_tables
        plain = {k: v for k, v in self.options.items() if own and k not in tables}
        special = [self.options[name] for name in tables if alias_of(name) == alias]
        return {**plain, **{key: value for table in special for key, value in table.items()}}

    def domain_requests(
        self,
        marked: Mapping[int, Sequence[int]],
        find: FindRecords | None = None,
        columns: Columns | None = None,
    ) -> tuple[Request, ...]:
        """Return the scheduled requests in the words of the domain.

        Parameters
        ----------
        marked : mapping of int to sequence of int
            Client id to the positions that its marker planted.
        find : callable or None
            Looks records up by their own ids; see :meth:`RequestConfig.to_request`.
        columns : Columns or None
            What the values of an example are called; None: nothing is said of them.

        Raises
        ------
        RequestError
            If a feature has another name.
        """
        last, known = 0 if self.start.model else self.rounds, columns or Columns()
        return tuple(
            entry.to_request(_default_id(place), last, marked, find, known)
            for place, entry in enumerate(self.requests)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, defaults included, keys without a value left out."""
        return self.model_dump(mode="json", exclude_none=True)


def _check_own_recovery(place: str, raw: object) -> None:
    try:
        OwnRecovery.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, (place, *first["loc"])))
        known = ", ".join(OwnRecovery.model_fields)
        raise ValueError(f"{key}: {first['msg']}; its keys are {known}") from error


def _default_id(place: int) -> str:
    # Fixed, so that starting again with the same config does not ask twice.
    return f"config-{place + 1}"


def alias_of(strategy: str) -> str:
    """Return the short name, that of the class: ``mine:MyStrategy`` is ``my-strategy``."""
    _, colon, name = strategy.partition(":")
    return _WORD.sub("-", name).lower() if colon else strategy
