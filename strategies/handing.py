"""What a hook is handed is not to be changed: nobody can, and who tries is told so in words."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unlearning.arrays import Array, Arrays
from unlearning.errors import FederationError

__all__ = ["handed", "not_written_to"]


def handed(arrays: Arrays) -> Arrays:
    """Return a model for a hook: a dict of its own, of arrays that cannot be written to.

    No array is copied; what changes ``arrays`` itself is seen in it.

    Examples
    --------
    >>> import numpy as np
    >>> model = {"w": np.ones(2)}
    >>> given = handed(model)
    >>> given["w"].flags.writeable, model["w"].flags.writeable
    (False, True)
    """
    return {
        name: _sealed(array) if array.flags.writeable else array for name, array in arrays.items()
    }


@contextmanager
def not_written_to(who: str) -> Iterator[None]:
    """Say in words, and where, that a hook of ``who`` writes to an array that it was handed.

    Raises
    ------
    FederationError
        Instead of what NumPy says of it.
    """
    try:
        yield
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise FederationError(
            f"{who} writes to an array that it was given ({Path(last.filename).name}, line "
            f"{last.lineno}, in {last.name}); let it return new ones"
        ) from error


def _sealed(array: Array) -> Array:
    found = array.view()
    found.flags.writeable = False
    return found
