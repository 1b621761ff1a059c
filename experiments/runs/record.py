"""What every record of a run folder shares: how it is read, and what is said when it cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from unlearning.errors import FedUnlearnError

__all__ = ["Record", "ResultsError", "read_json"]

_MISSING = (
    "the run has not finished or this is no run folder: see its state with `fedunlearn status`"
)
_AGAIN = "run the experiment again"


class ResultsError(FedUnlearnError):
    """The files a run left behind are missing, damaged or of another shape."""


def read_json(path: Path, missing: str = _MISSING, again: str = _AGAIN) -> object:
    """Return what a file of a run folder holds.

    Parameters
    ----------
    path : Path
        The file.
    missing, again : str
        What to say, after its path, where it is missing; and what to do where it is damaged.

    Raises
    ------
    ResultsError
        If it is missing or no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ResultsError(f"{path} does not exist; {missing}") from None
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} cannot be read ({error}); {again}") from error


class Record(BaseModel):
    """A part of such a file; unknown entries are kept, since the file may grow."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    @classmethod
    def read(cls, path: Path, missing: str = _MISSING, again: str = _AGAIN) -> Self:
        """Return the record that a file holds; ``missing`` and ``again`` as :func:`read_json`.

        Raises
        ------
        ResultsError
            If the file is missing, damaged or of another shape.
        """
        try:
            return cls.model_validate(read_json(path, missing, again))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ResultsError(
                f"{path} has another shape than this version writes ({place}: {first['msg']}); "
                f"{again}"
            ) from error
