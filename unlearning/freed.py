"""Memory that is let go is overwritten: what was forgotten must lie in no free corner of it.

A freed piece keeps its bytes until something else happens to be written there, which may be never.
Three allocators stand between an array and the system, and each is told in its own way:

- The C library overwrites a piece as it is freed, once :func:`overwrite_from_now_on` has told it to
  (``M_PERTURB`` of glibc). It spares some small ones that every thread keeps at hand.
- NumPy keeps some arrays below a kilobyte, Python its objects up to 512 bytes. These, and the small
  ones of the C library, :func:`overwrite_small` takes up, fills and lets go again.

Out of reach are the small pieces that other threads keep at hand, a thread's stack, the objects of
a Python without its lock, what the system has swapped out, and the memory of a GPU.
"""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

__all__ = ["overwrite_from_now_on", "overwrite_small"]

_PERTURB, _BYTE = -6, 0xA5  # of mallopt, and what freed memory is filled with

_AT_HAND, _LARGEST = 7, 1032  # of a size up to so many bytes a thread of glibc keeps so many
_CACHED, _BELOW = 7, 1024  # NumPy keeps so many arrays of a size, below so many bytes

_STEP = 16  # bytes between two sizes, of the C library and of Python
_SIZES = range(64, 512 + 1, _STEP)  # of Python's objects; less is nobody's data
_POOL, _HEAD = 1 << 14, 48  # a pool of Python holds objects of one size, behind a head
_ARENA = (1 << 20) // _POOL - 1  # an arena holds so many pools at least, wherever it begins
_MOST = 1 << 30  # bytes; more is never free in Python's pools


def overwrite_from_now_on() -> bool:
    """Have the C library overwrite what is freed from now on, in every thread.

    Returns
    -------
    bool
        Whether it does: glibc can, others do nothing.
    """
    told = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return told is not None and bool(told(_PERTURB, _BYTE))


def overwrite_small() -> None:
    """Overwrite the small pieces of memory that are free and that nobody overwrites when freed."""
    _in_pools()
    _of_numpy()
    if sys.platform == "linux":
        _at_hand()


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None)
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    return library


def _of_numpy() -> None:
    """Take up what NumPy keeps."""
    held = [np.zeros(size, np.uint8) for size in range(1, _BELOW) for _ in range(_CACHED)]
    del held


def _at_hand() -> None:
    """Take up what the C library keeps at hand for this thread."""
    library, held = _library(), []
    for size in range(_STEP // 2, _LARGEST + 1, _STEP):
        for piece in map(library.malloc, repeat(size, _AT_HAND)):
            if piece is not None:
                ctypes.memset(piece, 0, size)
                held.append(piece)
    for piece in held:
        library.free(piece)


def _in_pools() -> None:
    """Take up what is free in Python's pools.

    Whoever is given every object of a pool was given all of that size that lay free elsewhere, and
    whoever is given every pool of an arena all pools.
    """
    # With any of these the C library's allocator is at work, one that overwrites, or a third.
    if os.environ.get("PYTHONMALLOC") or sys.flags.dev_mode or _without_gil():
        return
    held = [_until(_SIZES[-1], _ARENA), *(_until(size, 1) for size in _SIZES)]
    del held


def _without_gil() -> bool:
    return bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def _until(size: int, pools: int) -> list[bytes]:
    """Return new objects of a size, up to so many whole pools of them in a row."""
    length, each = size - sys.getsizeof(b""), (_POOL - _HEAD) // size
    held: list[bytes] = []
    while len(held) * size < _MOST:
        new = list(map(bytes, repeat(length, each * (pools + 1) * 2)))
        held += new
        if _whole(np.fromiter(map(id, new), np.int64), size, each, pools):
            break
    return held


def _whole(places: NDArray[np.int64], size: int, each: int, pools: int) -> bool:
    """Return whether so many whole pools, one behind the other, are among some addresses."""
    first = np.flatnonzero(places % _POOL == _HEAD)
    first = first[first + each <= len(places)]
    begins = places[first[places[first + each - 1] - places[first] == (each - 1) * size]]
    last = begins[pools - 1 :]
    return bool((last - begins[: len(last)] == (pools - 1) * _POOL).any())
