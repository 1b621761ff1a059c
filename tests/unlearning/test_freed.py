"""What was freed is overwritten, whichever allocator has it."""

from __future__ import annotations

import platform
import subprocess
import sys

import numpy as np
import pytest

from unlearning import freed

# Makes pieces of many sizes in every way that arrays are held, lets go of all but every seventh,
# and then looks where they lay.
CHILD = """
import ctypes, sys, threading
import numpy as np
from unlearning import freed
told = "told" in sys.argv
assert not told or freed.overwrite_from_now_on()
SIZES = (64, 130, 200, 256, 333, 479, 640, 1000, 1024, 1280, 8192, 20_000, 100_000)
HEAD = sys.getsizeof(b"") - 1
mark = np.arange(1, 65, dtype=np.uint8)
turned = [np.roll(mark, -k).tobytes() for k in range(0, 64, 16)]
def content(size):
    return np.resize(mark, size)
def made(size):
    array, data = content(size), content(size).tobytes()
    loose = bytearray(data)
    return [
        (array, array.ctypes.data),
        (data, id(data) + HEAD),
        (loose, ctypes.addressof(ctypes.c_char.from_buffer(loose))),
    ]
def all_made():
    held = [(one, at, size) for _ in range(40) for size in SIZES for one, at in made(size)]
    both.wait()  # else one would keep something where the other let go
    kept.append(held[::7])
    places.extend((at, size) for place, (_, at, size) in enumerate(held) if place % 7)
kept, places, both = [], [], threading.Barrier(2)
thread = threading.Thread(target=all_made)
thread.start()
all_made()
thread.join()
if told:
    freed.overwrite_small()
left = 0
with open("/proc/self/mem", "rb", buffering=0) as memory:
    for at, size in places:
        try:
            memory.seek(at)
            found = memory.read(size)
        except OSError:
            continue  # given back to the system
        left += any(one in found for one in turned)
print(left, len(places))
"""


def left(*arguments: str) -> int:
    command = [sys.executable, "-c", CHILD, *arguments]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    return int(said.stdout.split()[0])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, as most Linux has")
def test_what_was_freed_is_overwritten_whoever_has_it() -> None:
    assert left() > 100  # what is free can be seen
    assert left("told") == 0


def test_a_pool_is_whole_when_every_piece_of_it_was_handed_out() -> None:
    size, each = 512, 31
    pool = np.arange(each) * size + freed._HEAD
    begun = (1 << 20) + pool
    assert freed._whole(begun, size, each, 1)
    assert not freed._whole(np.delete(begun, 7), size, each, 1)
    assert not freed._whole(begun[:-1], size, each, 1)
    both = np.concatenate([begun, begun + freed._POOL])
    assert freed._whole(both, size, each, 2)
    assert not freed._whole(np.concatenate([begun, begun + 2 * freed._POOL]), size, each, 2)
