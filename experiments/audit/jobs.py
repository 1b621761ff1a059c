"""The plain values that travel between an audit's processes; cheap to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from experiments.config.loading import Config

__all__ = ["Done", "Job", "Model", "Prepared"]

_DOSE = "dose-"


class Model(NamedTuple):
    """One model: its role, and the training seed."""

    role: str
    seed: int

    @staticmethod
    def dosed(percent: int, seed: int) -> Model:
        """Return the model that was trained with so much of the forget set."""
        return Model(f"{_DOSE}{percent}", seed)

    @property
    def dose(self) -> int | None:
        """Percent of the forget set still trained on; None for any other role."""
        return int(self.role.removeprefix(_DOSE)) if self.role.startswith(_DOSE) else None


@dataclass(frozen=True)
class Job:
    """What a worker does in one go: learn once, let strategies answer; or train with doses.

    Parameters
    ----------
    seed : int
        Training seed.
    models : tuple of (Model, str)
        What to make, each with the address to keep it at.
    """

    seed: int
    models: tuple[tuple[Model, str], ...]

    @property
    def strategies(self) -> tuple[str, ...]:
        """The roles that come from one learning; ``original`` may be among them."""
        return tuple(model.role for model, _ in self.models if model.dose is None)

    @property
    def doses(self) -> tuple[int, ...]:
        """The doses, in percent."""
        return tuple(model.dose for model, _ in self.models if model.dose is not None)


@dataclass(frozen=True)
class Done:
    """What a job left.

    Parameters
    ----------
    job : Job
        As it was given.
    failures : tuple of (str, str)
        Strategies that did not answer on this seed, and why.
    """

    job: Job
    failures: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Prepared:
    """An audit that was checked and may begin.

    Parameters
    ----------
    config : Config
        A settled one.
    names : tuple of str
        The strategies that serve its requests, controls left out.
    size : int
        K, models per side.
    key : str
        Hash of what all models have in common.
    jobs : tuple of Job
        What is not there yet, the largest first.
    total : int
        Models in all, those that are there included.
    refused : tuple of (str, str)
        Strategies that cannot serve, and why.
    scenario : dict
        What the data and requests are, for a reader.
    doses : bool
        Whether there are models that keep a part of what is forgotten.
    """

    config: Config
    names: tuple[str, ...]
    size: int
    key: str
    jobs: tuple[Job, ...]
    total: int
    refused: tuple[tuple[str, str], ...]
    scenario: dict[str, object]
    doses: bool = True

    @property
    def missing(self) -> int:
        """Models that are not there yet."""
        return sum(len(job.models) for job in self.jobs)
