"""What a hook is handed is not to be changed: nobody can; `mistakes` tells who tries."""

from __future__ import annotations

from unlearning.arrays import Array, Arrays

__all__ = ["handed"]


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


def _sealed(array: Array) -> Array:
    found = array.view()
    found.flags.writeable = False
    return found
