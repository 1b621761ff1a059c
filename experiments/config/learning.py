"""The tables that say what is learned: data, model, training, and the evidence planted in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from experiments.config.fields import (
    Count,
    Decay,
    Ids,
    LearningRate,
    Momentum,
    Names,
    OpenTable,
    Positive,
    Share,
    Table,
)

__all__ = [
    "DataConfig",
    "MarkerConfig",
    "ModelConfig",
    "OwnRecovery",
    "RecoveryConfig",
    "TrainConfig",
    "TrunkConfig",
]


class DataConfig(OpenTable):
    """Which data, and how the clients share it; further keys are the partitioner's parameters."""

    name: str = Field(
        default="digits", description="a data set, npz:PATH, text:PATH or module:function"
    )
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
    window: Positive | None = Field(
        default=None, description="text: the characters read before one is told, 32 if left out"
    )
    speakers: Positive | None = Field(
        default=None, description="text: keep so many speakers, those who say most"
    )
    tasks_per_client: Positive | None = Field(
        default=None, description="how many of the data set's tasks a client holds, all if left out"
    )
    shape: Ids = Field(default=(), description="remote data: the shape of one example")
    classes: Positive | None = Field(default=None, description="remote data: the number of labels")
    columns: Names = Field(
        default=(),
        description="remote data: what the columns of the sites' tables are called, in their order",
    )
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
    equal_weights: bool = Field(
        default=False, description="whether all clients count alike, not by their examples"
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
    equal_weights: bool | None = Field(
        default=None, description="whether all clients count alike, not by their examples"
    )
    fraction: Share | None = Field(default=None, description="the share of clients that train")
    server_momentum: Momentum = Field(
        default=0.0, description="the share of its last step that the server goes on with"
    )


class OwnRecovery(RecoveryConfig):
    """The recovery of one strategy, ``[options.<alias>.recovery]``: what differs from all others'.

    Reference programs recover each at a rate and for rounds of their own: FedOSD's at ``1e-6`` of
    a normalised step, PGA's notebook for 10 rounds of 50 steps.
    """

    rounds: Count | None = Field(default=None, description="the rounds after unlearning")
    server_momentum: Momentum | None = Field(  # type: ignore[assignment]
        default=None, description="the share of its last step that the server goes on with"
    )


class MarkerConfig(Table):
    """Evidence planted in clients' data before learning, to see whether it is forgotten."""

    kind: Literal["backdoor", "label-flip", "noise", "spurious", "canary"] = Field(
        default="backdoor", description="backdoor, label-flip, noise, spurious, or canary (of text)"
    )
    client: Count | None = Field(
        default=None,
        description="the client whose data is marked; of kind spurious all, if left out",
    )
    fraction: Share = Field(default=0.8, description="the share of its examples that is marked")
    unlearn_fraction: Share | None = Field(
        default=None,
        description="the share marked while the client helps to unlearn; fraction if left out",
    )
    label: Count = Field(default=0, description="the label that the trigger leads to")
    shift: Count = Field(
        default=0, description="from 1: the backdoor leads to the label so many further, for all"
    )
    size: Positive = Field(default=3, description="the width of the trigger in pixels or columns")
    value: float = Field(default=2.0, description="the value of the trigger; white is 1")
    pattern: Literal["solid", "random"] = Field(
        default="solid", description="solid, or random: 0 or the value, pixel by pixel"
    )
    at: Literal["corner", "live"] | Ids = Field(
        default="corner",
        description="corner (lower right, last columns), live (where examples differ most), or the "
        "place of its first pixel: [row, column], of a table [column]",
    )
    sigma: float = Field(
        default=1.0, gt=0, description="the standard deviation of the noise; white is 1"
    )
    canaries: Positive = Field(default=4, description="the number of different canaries")
    length: Positive = Field(
        default=8, description="the characters of a canary's beginning, and of its secret end"
    )

    @model_validator(mode="after")
    def _has_an_owner(self) -> MarkerConfig:
        if self.client is None and self.kind != "spurious":
            raise ValueError(
                f"marker.client is missing: a {self.kind} is in the data of one client"
            )
        if self.shift and self.kind != "backdoor":
            raise ValueError(f"marker.shift is for a backdoor, and this is a {self.kind}")
        return self
