"""What a task learns, a network or an array model, and what such a model says of examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from clients.sequences import is_sequential
from experiments.data import datasets as data
from experiments.federation.examples import Examples
from experiments.federation.predicting import Predictor
from experiments.federation.scenario import Scenario
from experiments.models import networks as models
from experiments.models.trunk import Trunk
from unlearning.arrays import Array, Arrays
from unlearning.errors import ConfigError
from unlearning.models.array_model import ArrayModel

__all__ = ["Learned"]

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


class Learned:
    """The model of a federation, by whoever its data are held.

    Parameters
    ----------
    scenario : Scenario
        Which model.
    found : Dataset
        The shape of its examples, its classes and its tasks.

    Raises
    ------
    ConfigError
        If the model cannot be built as asked, or does not fit the data.
    """

    def __init__(self, scenario: Scenario, found: data.Dataset) -> None:
        self.scenario = scenario
        chosen = scenario.data
        takes = bool(found.tasks) and models.takes_tasks(scenario.model.name)
        self.tasks: dict[str, int] = dict(found.tasks) if takes else {}
        if chosen.tasks_per_client and not self.tasks:
            raise ConfigError(
                f"data.tasks_per_client = {chosen.tasks_per_client}, but data set {chosen.name!r} "
                f"and model {scenario.model.name!r} have no tasks; take digit-pairs and "
                "multi-task, or leave it out"
            )
        self.num_classes = found.num_classes
        self.input_shape = found.input_shape
        trunk = scenario.model.trunk
        self._trunk = None if trunk is None else Trunk(trunk, self.input_shape, self.num_classes)
        self.array_model: ArrayModel | None = models.array_model(
            scenario.model.name,
            self.input_shape if self._trunk is None else (self._trunk.width,),
            self.num_classes,
            scenario.model.params,
            scenario.seed,
        )
        if self._trunk is not None and self.array_model is None:
            raise ConfigError(
                f"model.trunk is for models that are no network, {scenario.model.name!r} is "
                "one; leave it out, or take ridge, logistic, svm or k-means"
            )
        model = self.array_model or self.fresh_model(scenario.seed)
        # A network that answers at every position is asked for what follows each of its tokens.
        self.is_sequential = isinstance(model, nn.Module) and is_sequential(model)
        if self.is_sequential:
            _check_tokens(found)
        columns = sum(self.tasks.values()) or self.num_classes
        self._predictor = Predictor(model, columns, self.seen)

    def fresh_model(self, seed: int) -> nn.Module:
        """Return a newly initialised network on the CPU.

        Raises
        ------
        ConfigError
            If the model is none.
        """
        chosen = self.scenario.model
        if self.array_model is not None:
            raise ConfigError(f"model.name = {chosen.name!r} is no network; choose one that is")
        params = {**chosen.params, **({"tasks": self.tasks} if self.tasks else {})}
        return models.build(chosen.name, self.input_shape, self.num_classes, params, seed)

    def initial(self) -> Arrays:
        """Return the model before the first round."""
        if self.array_model is not None:
            return self.array_model.initial()
        return models.to_arrays(self.fresh_model(self.scenario.seed))

    def seen(self, x: Floats) -> NDArray[np.floating[Any]]:
        """Return what the model is given of examples: themselves, or what a frozen trunk reads."""
        return x if self._trunk is None else self._trunk(x)

    def labels(self, x: Floats, y: Integers) -> Integers:
        """Return what a network for one task is asked for: ``y``, or what follows every token.

        Shape (n,); of sequences (n, length): the tokens of ``x`` from the second on, and ``y``.
        """
        if not self.is_sequential:
            return y
        return np.concatenate([x[:, 1:].astype(np.int64), y[:, None]], axis=1)

    def predict(self, arrays: Mapping[str, Array], x: Floats, device: str = "cpu") -> Floats:
        """Return softmax probabilities of a model, shape (n, num_classes); n may be 0.

        Those of several tasks stand side by side, each adding up to 1. Of sequences they are those
        of what follows the last token, ``y``; :meth:`predict_all` has every position's.

        Parameters
        ----------
        arrays : mapping of str to array
            The model.
        x : array of float32, shape (n, ...)
            Examples.
        device : str
            Where to compute: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

        Raises
        ------
        FederationError
            If the arrays do not fit the model.
        """
        return self._predictor.probabilities(arrays, x, device)

    def predict_each(
        self, arrays: Mapping[str, Array], sets: Sequence[Floats], device: str = "cpu"
    ) -> list[Floats]:
        """Return what :meth:`predict` does of each of several sets, looked at at once."""
        return self._predictor.of_each(arrays, sets, device)

    def predict_all(self, arrays: Mapping[str, Array], x: Floats, device: str = "cpu") -> Floats:
        """Return a model's probabilities of what follows every token, (n, length, num_classes).

        Parameters are those of :meth:`predict`; the model answers at every position.
        """
        return self._predictor.at_every_position(arrays, x, device)

    def scores(self, arrays: Mapping[str, Array], x: Floats, device: str = "cpu") -> Floats:
        """Return a network's logits; of another model its probabilities, as :meth:`predict`."""
        return self._predictor.logits(arrays, x, device)

    def losses(
        self, arrays: Mapping[str, Array], examples: Examples, device: str = "cpu"
    ) -> NDArray[np.float64]:
        """Return the cross-entropy of a model on each example, shape (n,).

        Probabilities below the smallest float32 count as that, so that every loss is finite.
        """
        probabilities = self.predict(arrays, examples.x, device)
        true = probabilities[np.arange(len(examples.y)), examples.y].astype(np.float64)
        return -np.log(np.maximum(true, np.finfo(np.float32).tiny))


def _check_tokens(found: data.Dataset) -> None:
    """Refuse values that are no tokens where a network reads tokens."""
    for part, x in (("training", found.train_x), ("test", found.test_x)):
        if len(x) and (x.min() < 0 or x.max() >= found.num_classes or (x != np.floor(x)).any()):
            raise ConfigError(
                f"data set {found.name!r}, {part} part: the model reads tokens, whole numbers from "
                f"0 to {found.num_classes - 1}, and there are others; take data of text, or tokens "
                "of another type than bytes, which are scaled"
            )
