"""What a metric says of itself: id, unit, perfect value, and where a model that remembers lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Metric", "Remembered"]

Remembered = Literal["higher", "lower"]


@dataclass(frozen=True)
class Metric:
    """One entry of the catalogue.

    Parameters
    ----------
    id : str
        "M1" to "M18".
    name : str
        Kebab-case, for files and columns.
    title : str
        For a reader.
    unit : str
        What 1 means.
    perfect : str
        The value of a model that forgot; in words where it is not one number.
    remembered : "higher", "lower" or None
        On which side of the perfect value a model that did *not* forget lies; None where the
        metric does not measure forgetting (cost, guarantee).
    source : str
        Where the definition comes from.
    """

    id: str
    name: str
    title: str
    unit: str
    perfect: str
    remembered: Remembered | None
    source: str
