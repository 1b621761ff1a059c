"""What one model leaves behind for an audit: what it says about each set, and how it relearns.

A trace is small (tens of kilobytes), so that the statistics over hundreds of models never hold a
model. It is a function of the model and the task alone; its file has the same bytes every time.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from clients.sequences import AtTheEnd
from clients.steps import Shard
from clients.training import batches, lone_examples, optimiser, trained
from experiments.config.schema import TrainConfig
from experiments.data import datasets as data
from experiments.federation.judged_sets import judged_sets
from experiments.federation.task import Examples, Task
from experiments.models import networks as models
from unlearning.arrays import Arrays
from unlearning.cost import Cost
from unlearning.request import Forgotten, Request

__all__ = ["COUNTED", "PHASES", "RELEARN_STEPS", "Probes", "Trace", "Tracer"]

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Integers = NDArray[np.int64]

RELEARN_STEPS = 64  # longest relearning, in steps of SGD on the forget set
PHASES = ("learn", "unlearn", "recover")
COUNTED = ("client_rounds", "examples", "bytes_up", "bytes_down")  # what no clock has a part in
_MOST = 1000  # examples of the test set whose outputs are kept
_MOST_RETAINED = 256  # of the retained data, where only drifts are looked for
_MOST_FEATURES = 128
_CHUNK = 1024
_RELEARN = 4  # last part of the address of relearning's randomness


@dataclass(frozen=True)
class Trace:
    """What is kept of one model. K clients, C classes, n examples of a set.

    Parameters
    ----------
    forget, held_out, retain, test : array of float32, shape (n, C)
        Outputs before the softmax; of array models the logarithm of their probabilities.
    accuracies : array of float64, shape (3,)
        On all of the forget, retain and test sets; fractions.
    clients : array of float64, shape (K,)
        Accuracy on each client's retained data; NaN for one that has none left.
    class_correct : array of int64, shape (K, C)
        Right answers on each client's retained data, by label.
    marker : array of float64, shape () or (1,)
        Success of the marker, a fraction; shape (0,) without one that shows in predictions.
    noise : array of float64, shape (n,)
        Per example with planted noise, the normalised product of that noise and the gradient of
        the loss at the clean input; empty without one.
    relearn : array of float64, shape (RELEARN_STEPS + 1,)
        Mean loss on the forget set before and after each step of relearning it, in nats; empty for
        array models.
    features : array of float32, shape (n, width)
        What enters the last layer, on the first test examples; empty for array models.
    work : array of int64, shape (3, 4)
        :data:`COUNTED` for each of :data:`PHASES`.
    """

    forget: Singles
    held_out: Singles
    retain: Singles
    test: Singles
    accuracies: Floats
    clients: Floats
    class_correct: Integers
    marker: Floats
    noise: Floats
    relearn: Floats
    features: Singles
    work: Integers

    def to_bytes(self) -> bytes:
        """Return the trace as an ``npz`` file; equal traces give equal bytes."""
        # Not np.savez: it leaves the format's details, and so the bytes, to the NumPy at hand.
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
            for field in fields(self):
                part = io.BytesIO()
                array = np.ascontiguousarray(getattr(self, field.name))
                np.lib.format.write_array(part, array, version=(1, 0), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{field.name}.npy"), part.getvalue())
        return out.getvalue()

    @staticmethod
    def from_bytes(raw: bytes) -> Trace:
        """Return the trace that :meth:`to_bytes` wrote.

        Raises
        ------
        ValueError
            If it is none: cut off, damaged, or with other contents.
        """
        try:
            with np.load(io.BytesIO(raw), allow_pickle=False) as found:
                return Trace(**{name: found[name] for name in found.files})
        except (zipfile.BadZipFile, KeyError, OSError, TypeError, EOFError) as error:
            raise ValueError(f"no trace: {error}") from error


@dataclass(frozen=True)
class Probes:
    """The examples that every model of an audit is asked about, and their labels.

    Parameters
    ----------
    forget, held_out, retain, test : Examples
        In the order of the rows of :class:`Trace`.
    retain_clients : array of int64, shape (n,)
        Who holds each example of ``retain``.
    marked : array of bool, shape (n,)
        Which of ``forget`` carry a marker.
    client_class : array of int64, shape (K, C)
        Retained examples of each client, by label.
    """

    forget: Examples
    held_out: Examples
    retain: Examples
    test: Examples
    retain_clients: Integers
    marked: NDArray[np.bool_]
    client_class: Integers


class Tracer:
    """Makes traces of the models of one task.

    Parameters
    ----------
    task : Task
        Data and model.
    requests : iterable of Request
        Their union is the forget set.
    train : TrainConfig
        How relearning steps.
    device : str
        Where models are looked at.
    """

    def __init__(
        self, task: Task, requests: Iterable[Request], train: TrainConfig, device: str = "cpu"
    ) -> None:
        self._task, self._device, self._train = task, device, train
        asked = tuple(requests)
        gone = Forgotten(asked)
        self._kept = {client: task.kept(client, gone) for client in task.clients}
        self._blank = {client: sorted(gone.omission(client).features) for client in task.clients}
        self.probes = self._probe(asked, gone)

    def _probe(self, asked: tuple[Request, ...], gone: Forgotten) -> Probes:
        task = self._task
        stays = task.retain_set(gone)
        owner = task.retain_owners(gone)
        chosen = np.arange(len(stays.y))
        if len(chosen) > _MOST_RETAINED:
            chosen = np.sort(data.stratified(stays.y, _MOST_RETAINED))
        retain = Examples(stays.x[chosen], stays.y[chosen])
        examples = {client: task.client(client) for client in task.clients}
        counts = np.stack(
            [
                np.bincount(examples[c].train_y[mask], minlength=task.num_classes)
                for c, mask in self._kept.items()
            ]
        )
        marked = np.concatenate(
            [
                np.isin(np.flatnonzero(task.named(client, gone)), task.marked(client))
                for client in task.clients
            ]
        )
        sets = judged_sets(task, asked)
        return Probes(
            forget=sets.forget,
            held_out=sets.held_out,
            retain=retain,
            test=Examples(sets.test.x[:_MOST], sets.test.y[:_MOST]),
            retain_clients=owner[chosen],
            marked=marked,
            client_class=counts.astype(np.int64),
        )

    def trace(self, arrays: Arrays, costs: Mapping[str, Cost] | None = None) -> Trace:
        """Return what a model leaves behind.

        Parameters
        ----------
        arrays : Arrays
            The model.
        costs : mapping of str to Cost, optional
            By phase, of making it.
        """
        task, probes = self._task, self.probes
        network = None
        if task.array_model is None:
            network = models.load(task.fresh_model(0), arrays).to(models.device(self._device))
            if task.is_sequential:  # an audit looks at one label per example
                network = AtTheEnd(network)
        by_client = self._by_client(arrays)
        totals = probes.client_class.sum(axis=1)
        right = by_client.sum(axis=1)
        shares = np.divide(right, totals, where=totals > 0, out=np.full(len(totals), np.nan))
        forget = self._outputs(arrays, network, probes.forget.x)
        test = task.test_set()
        accuracies = [
            _share(forget.argmax(1), probes.forget.y),
            right.sum() / totals.sum(),
            _share(task.predict(arrays, test.x, self._device).argmax(1), test.y),
        ]
        spent = costs or {}
        return Trace(
            forget=forget,
            held_out=self._outputs(arrays, network, probes.held_out.x),
            retain=self._outputs(arrays, network, probes.retain.x),
            test=self._outputs(arrays, network, probes.test.x),
            accuracies=np.array(accuracies, dtype=np.float64),
            clients=shares,
            class_correct=by_client,
            marker=self._marker(arrays, forget),
            noise=self._noise(network),
            features=_features(network, probes.test.x[:_MOST_FEATURES]),
            relearn=self._relearn(network),  # last: it changes the network
            work=np.array(
                [[getattr(spent.get(p, Cost()), name) for name in COUNTED] for p in PHASES],
                dtype=np.int64,
            ),
        )

    def _outputs(self, arrays: Arrays, network: nn.Module | None, x: Singles) -> Singles:
        if network is None:
            probabilities = self._task.predict(arrays, x)
            return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
        network.eval()
        place = next(network.parameters()).device
        with torch.inference_mode():
            parts = [
                network(torch.from_numpy(np.ascontiguousarray(x[i : i + _CHUNK])).to(place))
                for i in range(0, len(x), _CHUNK)
            ]
        if not parts:
            return np.empty((0, self._task.num_classes), np.float32)
        return torch.cat(parts).cpu().numpy()

    def _by_client(self, arrays: Arrays) -> Integers:
        """Return right answers on every client's retained data, by label; (K, C)."""
        found = np.zeros((len(self._kept), self._task.num_classes), np.int64)
        for row, (client, mask) in enumerate(self._kept.items()):
            if mask.any():
                held = self._task.client(client)
                x, y = held.train_x[mask], held.train_y[mask]
                x.reshape(len(x), -1)[:, self._blank[client]] = 0
                right = self._task.predict(arrays, x, self._device).argmax(1) == y
                found[row] = np.bincount(y[right], minlength=found.shape[1])
        return found

    def _marker(self, arrays: Arrays, forget: Singles) -> Floats:
        """Return how often the patch works on test data, or flipped labels are answered."""
        marker = self._task.marker
        triggered = self._task.triggered_test()
        if triggered is not None:
            predicted = self._task.predict(arrays, triggered.x, self._device).argmax(1)
            return np.array([np.mean(predicted == triggered.target)])
        marked = self.probes.marked
        if marker is None or marker.kind != "label-flip" or not marked.any():
            return np.empty(0)
        return np.array([_share(forget[marked].argmax(1), self.probes.forget.y[marked])])

    def _noise(self, network: nn.Module | None) -> Floats:
        """Return ``<gradient at the clean input, noise> / (sigma |gradient|)`` per example."""
        planted = self._task.planted_noise()
        marker = self._task.marker
        if network is None or planted is None or marker is None:
            return np.empty(0)
        network.eval()
        place = next(network.parameters()).device
        x = torch.from_numpy(planted.x).to(place).requires_grad_(True)
        loss = functional.cross_entropy(
            network(x), torch.from_numpy(planted.y).to(place), reduction="sum"
        )
        (gradient,) = torch.autograd.grad(loss, x)
        flat = gradient.flatten(1).double().cpu().numpy()
        noise = planted.noise.reshape(len(flat), -1).astype(np.float64)
        norms = np.linalg.norm(flat, axis=1)
        products = (flat * noise).sum(axis=1) / marker.sigma
        found: Floats = np.divide(products, norms, where=norms > 0, out=np.zeros(len(norms)))
        return found

    def _relearn(self, network: nn.Module | None) -> Floats:
        """Return the loss on the forget set while the model is trained on it alone."""
        forget = self.probes.forget
        if network is None or not len(forget.y):
            return np.empty(0)
        place = next(network.parameters()).device
        shard = Shard(torch.from_numpy(forget.x).to(place), torch.from_numpy(forget.y).to(place))
        settings = {**self._train.model_dump(exclude={"fraction"}), "max_steps": RELEARN_STEPS}
        sgd = optimiser(settings, trained(network))
        generator = np.random.default_rng([self._task.scenario.data_seed, 0, 0, _RELEARN])
        curve = [_loss(network, shard)]
        for batch in batches(shard, settings, generator, epochs=RELEARN_STEPS):
            network.train()
            sgd.zero_grad(set_to_none=True)
            with lone_examples(network):
                loss = functional.cross_entropy(network(batch.features), batch.labels)
            torch.autograd.backward(loss)
            sgd.step()
            curve.append(_loss(network, shard))
        return np.array(curve)


def _loss(network: nn.Module, shard: Shard) -> float:
    network.eval()
    with torch.inference_mode():
        return float(functional.cross_entropy(network(shard.features), shard.labels))


def _features(network: nn.Module | None, x: Singles) -> Singles:
    """Return what enters the last linear layer."""
    layers = [] if network is None else [m for m in network.modules() if isinstance(m, nn.Linear)]
    if network is None or not layers:
        return np.empty((0, 0), np.float32)
    seen: list[torch.Tensor] = []
    handle = layers[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network.eval()
    place = next(network.parameters()).device
    try:
        with torch.inference_mode():
            network(torch.from_numpy(np.ascontiguousarray(x)).to(place))
    finally:
        handle.remove()
    return seen[0].flatten(1).cpu().numpy()


def _share(predicted: NDArray[np.integer], labels: Integers) -> float:
    return float(np.mean(predicted == labels)) if len(labels) else float("nan")
