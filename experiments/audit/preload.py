"""Imported once by the server that an audit's workers are forked from; by nothing else."""

from __future__ import annotations

import gc

import experiments.audit.evaluation
import experiments.audit.work  # noqa: F401

# Collecting garbage writes to every object it looks at, and a page that is written to is no longer
# shared: without this each worker would hold a copy of most of what was imported.
gc.collect()
gc.freeze()
