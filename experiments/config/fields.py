"""What the values of a config may be: ranges, lists in two spellings, closed and open tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator

__all__ = [
    "Count",
    "Decay",
    "Features",
    "Ids",
    "LearningRate",
    "Momentum",
    "Names",
    "OpenTable",
    "Positive",
    "Records",
    "Samples",
    "Share",
    "Table",
    "listed",
]


def listed(value: object) -> object:
    """Return a list as a tuple, and text as its comma-separated parts (Flower knows no lists)."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value) if isinstance(value, list) else value


def _texts(value: object) -> object:
    """Return whole numbers among texts as texts."""
    if not isinstance(value, tuple):
        return value
    return tuple(str(part) if type(part) is int else part for part in value)


def _integers(value: object) -> object:
    """Return a list of integers as a tuple; comma-separated digits are accepted as text."""
    found = listed(value)
    if isinstance(value, str) and isinstance(found, tuple):
        return tuple(int(part) if part.lstrip("-").isdigit() else part for part in found)
    return found


def _features(value: object) -> tuple[int | str, ...]:
    """Return positions and names; digits are positions."""
    found = listed(value) if not isinstance(value, int) else (value,)
    if not isinstance(found, tuple) or any(
        isinstance(one, bool) or not isinstance(one, int | str) or one in ("",) for one in found
    ):
        raise ValueError(
            "should be a list of column names, of positions counted from 0 over all axes of an "
            "example, of regions such as '0:2x3:8', or a mask in a file .npy"
        )
    if odd := [one for one in found if isinstance(one, int) and one < 0]:
        raise ValueError(f"should count positions from 0; {odd[0]} is negative")
    return found


def _positions(value: object) -> tuple[int, ...]:
    found = _integers(value)
    if not isinstance(found, tuple) or any(type(i) is not int or i < 0 for i in found):
        raise ValueError("should be a list of positions counted from 0, for example [4, 8, 15]")
    return found


def _samples(value: object) -> tuple[int, ...] | dict[int, tuple[int, ...]] | Literal["marked"]:
    """Return positions of one client, positions per client, or the word ``marked``."""
    if value == "marked":
        return "marked"
    if not isinstance(value, Mapping):
        return _positions(value)
    if odd := [key for key in value if not str(key).isdigit()]:
        raise ValueError(f"should name clients by number; {str(odd[0])!r} is none")
    return {int(key): _positions(positions) for key, positions in value.items()}


Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Ids = Annotated[tuple[Count, ...], BeforeValidator(_integers)]
Samples = Annotated[
    tuple[int, ...] | dict[int, tuple[int, ...]] | Literal["marked"],
    PlainValidator(_samples),
    PlainSerializer(lambda value: value, return_type=Any),
]
Features = Annotated[
    tuple[int | str, ...],
    PlainValidator(_features),
    PlainSerializer(list, return_type=Any),
]
Names = Annotated[tuple[str, ...], BeforeValidator(listed)]
Records = Annotated[tuple[str, ...], BeforeValidator(_texts), BeforeValidator(listed)]
LearningRate = Annotated[float, Field(gt=0)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Decay = Annotated[float, Field(ge=0)]


class Table(BaseModel):
    """A table whose keys are all known."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True
    )


class OpenTable(BaseModel):
    """A table whose further keys are parameters of the thing that it names."""

    model_config = ConfigDict(
        frozen=True, extra="allow", strict=True, allow_inf_nan=False, validate_default=True
    )

    @property
    def params(self) -> dict[str, Any]:
        """The keys that are not the table's own."""
        return dict(self.model_extra or {})
