"""Five losses by which those who hold data make a model forget them.

References
----------
Zhang R., Lin, Bai, Mei, "Negative Preference Optimization: From Catastrophic Collapse to Effective
Unlearning", COLM 2024 (arXiv 2404.05868).
Fan et al., "Simplicity Prevails: Rethinking Negative Preference Optimization for LLM Unlearning",
2024 (arXiv 2410.07163).
Fan et al., "SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency", ICLR 2024
(arXiv 2310.12508).
Kurmanji, Triantafillou P., Hayes, Triantafillou E., "Towards Unbounded Machine Unlearning",
NeurIPS 2023 (arXiv 2302.09880).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from clients.derivatives import mean_loss
from clients.multitask import MultiTask
from clients.sequences import per_example
from clients.state import parameters_of
from clients.steps import Local, Outcome, Shard
from clients.training import batches, kl_divergence, loss_of, number, optimiser, trained
from unlearning.errors import FederationError
from unlearning.protocol import Settings

_CHUNK = 1024
_SCRUB_TEMPERATURE = 2.0  # of both softmaxes, the authors' value


def preference(
    losses: torch.Tensor, start: torch.Tensor | float, beta: float, gamma: float = 1.0
) -> torch.Tensor:
    """Return ``-(2 gamma / beta) log sigmoid(beta (loss - start))``, example by example.

    Parameters
    ----------
    losses : torch.Tensor
        ``(n,)``, -log p(y | x) under the model that is moved, in nats; of sequences that of the
        whole sequence for NPO, its mean over positions for SimNPO, as in the papers.
    start : torch.Tensor or float
        The same under the model as it came (NPO), or a margin (SimNPO has 0).
    beta : float
        How soon the pull fades, per nat; towards 0 it is plain ascent.
    gamma : float
        Weight.
    """
    return -(2 * gamma / beta) * functional.logsigmoid(beta * (losses - start))


def divergence(
    teacher: torch.Tensor, student: torch.Tensor, temperature: float = _SCRUB_TEMPERATURE
) -> torch.Tensor:
    """Return ``tau^2 KL(teacher || student)``, mean over a batch, of logits."""
    return temperature**2 * kl_divergence(teacher, student, temperature)


def saliency(gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the half of all entries where the gradient is largest: booleans, floor(P / 2) True.

    Ties go to the entry that comes first.
    """
    values = torch.cat([g.abs().flatten() for g in gradients.values()])
    chosen = torch.zeros_like(values, dtype=torch.bool)
    chosen[torch.argsort(values, descending=True, stable=True)[: len(values) // 2]] = True
    parts = torch.split(chosen, [g.numel() for g in gradients.values()])
    return {n: part.view_as(g) for (n, g), part in zip(gradients.items(), parts, strict=True)}


def forget_loss(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Descend one of five losses over the forget set f and, where there is any, the rest r.

    With l = -log p(y | x), l0 the same of the model as it came, q its probabilities; a sequence
    counts as one y for ``npo``, by the mean over its positions for the others:

    - ``grad-diff``: ``-gamma mean_f l + alpha mean_r l``
    - ``npo``: ``-(2 / beta) mean_f log sigmoid(beta (l - l0)) + alpha mean_r l``
    - ``sim-npo``: the same with 0 for l0 and the weight gamma
    - ``salun``: cross-entropy with a wrong label on f and the true one on r, in the half of the
      weights where the gradient on f is largest
    - ``scrub``: for three epochs one pass that ascends KL(q || p) on f; every epoch one that
      descends ``gamma l + alpha KL(q || p)`` on r

    The model is used as it is deployed, in evaluation mode; its statistics stay. Settings:
    ``kind``, ``epochs``, ``beta``, ``gamma``, ``alpha``, ``ascent_epochs`` (of ``scrub``), ``clip``
    (gradient norm), ``stop_unseen`` (end once the mean loss on f has come up to that on held-out
    data, looked at once per epoch), and ``batch_size``, ``learning_rate``, ``momentum``,
    ``weight_decay``.
    """
    forget = local.forget
    if not len(forget):
        return Outcome(0, 0)
    if isinstance(model, MultiTask):
        raise FederationError(
            "forget_loss works on one label per example, not on several tasks; use retrain"
        )
    work = _Work(model, local, settings, generator)
    limit = float("inf")
    if settings.get("stop_unseen") and len(local.held_out):
        limit = mean_loss(model, local.held_out)
        model.eval()
    epoch = 0
    for epoch in range(1, int(number(settings, "epochs")) + 1):
        work.epoch(epoch)
        if limit < float("inf") and mean_loss(model, forget) >= limit:
            break
    return Outcome(len(forget), work.processed, metrics={"epochs": epoch})


class _Work:
    """One client's model on its way, and what does not change while it is moved."""

    def __init__(
        self, model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
    ) -> None:
        self.model = model.eval()
        self.settings = {**settings, "max_steps": 0}
        self.generator = generator
        self.kind = str(settings["kind"])
        self.weights = trained(model)
        self.sgd = optimiser(settings, self.weights)
        self.forget, self.retain = local.forget, local.retain
        self.processed = 0
        self.said = {"f": self._logits(self.forget), "r": self._logits(self.retain)}
        self._rest = self._endless()
        self.before = {n: w.detach().clone() for n, w in parameters_of(model).items()}
        self.mask = self._mask() if self.kind == "salun" else {}
        if self.kind == "salun":
            self.forget = Shard(self.forget.features, self._wrong())

    def epoch(self, count: int) -> None:
        """Make one pass over the forget set, beside the rest; for ``scrub`` one after the other."""
        if self.kind == "scrub":
            if count <= number(self.settings, "ascent_epochs"):
                for places in self._places(self.forget):
                    student = self.model(self.forget.features[places])
                    self._step(-divergence(self.said["f"][places], student), len(places))
            for places in self._places(self.retain):
                self._step(self._kept(places), len(places))
            return
        for places in self._places(self.forget):
            loss, count = self._leaving(places), len(places)
            if (beside := next(self._rest, None)) is not None:
                loss, count = loss + self._kept(beside), count + len(beside)
            self._step(loss, count)

    def _leaving(self, places: torch.Tensor) -> torch.Tensor:
        x, y = self.forget.features[places], self.forget.labels[places]
        whole = self.kind == "npo"
        losses = self._each(self.model(x), y, whole)
        beta, gamma = number(self.settings, "beta"), number(self.settings, "gamma")
        if self.kind == "npo":
            start = self._each(self.said["f"][places], y, whole)
            return preference(losses, start, beta).mean()
        if self.kind == "sim-npo":
            return preference(losses, 0.0, beta, gamma).mean()
        return losses.mean() if self.kind == "salun" else -gamma * losses.mean()

    def _each(
        self, logits: torch.Tensor, labels: torch.Tensor, whole: bool = False
    ) -> torch.Tensor:
        """Return the loss of every example; a model's own loss is asked for one at a time."""
        own = loss_of(self.model)
        if own is functional.cross_entropy:
            found = functional.cross_entropy(logits, labels, reduction="none")
            return per_example(found, total=whole)
        pairs = zip(torch.split(logits, 1), torch.split(labels, 1), strict=True)
        return torch.stack([own(said, label) for said, label in pairs])

    def _kept(self, places: torch.Tensor) -> torch.Tensor:
        logits = self.model(self.retain.features[places])
        loss = loss_of(self.model)(logits, self.retain.labels[places])
        alpha = number(self.settings, "alpha")
        if self.kind == "scrub":
            near = divergence(self.said["r"][places], logits)
            return number(self.settings, "gamma") * loss + alpha * near
        return alpha * loss

    def _step(self, loss: torch.Tensor, count: int) -> None:
        self.sgd.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.weights, number(self.settings, "clip"))
        self.sgd.step()
        self.processed += count
        with torch.no_grad():  # momentum and decay move what has no gradient
            for name, weight in parameters_of(self.model).items() if self.mask else ():
                weight.copy_(torch.where(self.mask[name], weight, self.before[name]))

    def _places(self, shard: Shard, epochs: int = 1) -> Iterator[torch.Tensor]:
        numbered = Shard(shard.labels, torch.arange(len(shard), device=shard.labels.device))
        for batch in batches(numbered, self.settings, self.generator, epochs=epochs):
            yield batch.labels

    def _endless(self) -> Iterator[torch.Tensor]:
        while len(self.retain):
            yield from self._places(self.retain)

    def _logits(self, shard: Shard) -> torch.Tensor:
        if not len(shard):
            return torch.empty(0)
        self.processed += len(shard)
        with torch.no_grad():
            return torch.cat([self.model(x) for x in torch.split(shard.features, _CHUNK)])

    def _mask(self) -> dict[str, torch.Tensor]:
        self.model.zero_grad(set_to_none=True)
        for start in range(0, len(self.forget), _CHUNK):
            x = self.forget.features[start : start + _CHUNK]
            y = self.forget.labels[start : start + _CHUNK]
            torch.autograd.backward(self._each(self.model(x), y).sum())
        self.processed += len(self.forget)
        found = {
            name: torch.zeros_like(w) if w.grad is None else w.grad.clone()
            for name, w in parameters_of(self.model).items()
        }
        return saliency(found)

    def _wrong(self) -> torch.Tensor:
        """Return a label per example that is not its own, each as likely as any other."""
        labels, classes = self.forget.labels, self.said["f"].shape[1]
        shift = self.generator.integers(1, max(2, classes), size=tuple(labels.shape))
        return (labels + torch.from_numpy(shift).to(labels)) % classes
