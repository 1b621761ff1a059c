"""The official files of data sets, where a machine has them; nothing is fetched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

__all__ = ["FILES", "official"]

FILES = Path(
    os.environ.get("FEDUNLEARN_DATA") or Path(__file__).resolve().parents[2] / "../shared/data"
)
_SOURCES = {
    "MNIST/raw": "the four files of MNIST, which torchvision.datasets.MNIST(download=True) fetches",
    "FashionMNIST/raw": "the four files that torchvision.datasets.FashionMNIST(download=True) "
    "fetches",
    "adult": "adult.data and adult.test of UCI's Adult (archive.ics.uci.edu/dataset/2/adult)",
    "location30": "dataset_location.tgz of github.com/privacytrustlab/datasets",
}


def official(name: str) -> Path:
    """Return the folder of a data set's files, or skip with what is missing and how to get it."""
    if not (FILES / name).exists():
        pytest.skip(
            f"no {name} below {FILES}; put {_SOURCES[name]} there, or name the folder that holds "
            f"{name} by FEDUNLEARN_DATA"
        )
    return FILES / name
