"""Imported once by the server that an audit's workers are forked from; by nothing else."""

from __future__ import annotations

import gc

import torch

import experiments.audit.evaluation
import experiments.audit.work  # noqa: F401

# The first optimiser imports much of PyTorch's compiler: once here, not in every worker.
torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0).zero_grad()
# Collecting garbage writes to every object it looks at, and a page that is written to is no longer
# shared: without this each worker would hold a copy of most of what was imported.
gc.collect()
gc.freeze()
