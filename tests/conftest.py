"""In which order tests run, and what all of them share."""

import functools
import gc
import logging
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Before anything imports NumPy or PyTorch: workers with a thread for every core starve each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Ray's workers give way to all others (niceness 15): beside busy cores they stand still.
    os.environ.setdefault("RAY_worker_niceness", "0")

# Hardly anything is let go while tests are collected: looking for it is a fifth of that time.
gc.disable()

# Tests write and flush many small files, and wait for the disk each time: not so in memory.
_IN_MEMORY = "/dev/shm"
_ROOM = 2 << 30  # bytes; tests that run side by side need a tenth of it
if os.access(_IN_MEMORY, os.W_OK) and shutil.disk_usage(_IN_MEMORY).free >= _ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", _IN_MEMORY)

# How long an example takes says what else runs, not whether the code is right.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


# First, so that pytest-xdist finds the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Keep tests that share what their module made once on one worker, as one group.

    A group of its own comes from ``xdist_group``; ``--dist loadgroup`` heeds it. Side by side,
    the tests of Ray, which wait most, come first, then groups with a slow test, large ones before
    small ones, and single tests last, so that no core waits at the end; xdist keeps to that order
    with ``--no-loadscope-reorder``.
    """
    for item in items:
        given = item._fixtureinfo.name2fixturedefs.values()
        shares = any(found[-1].scope == "module" for found in given if found)
        if shares and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.location[0]))
    if "PYTEST_XDIST_WORKER" in os.environ:
        sizes = Counter(map(_group, items))
        slow = {_group(item) for item in items if _is_slow(item)}
        items.sort(
            key=lambda item: (
                _group(item) != "ray",
                _group(item) not in slow,
                -sizes[_group(item)],
            )
        )


def _group(item):
    marker = item.get_closest_marker("xdist_group")
    return marker.args[0] if marker else item.nodeid


def _is_slow(item):
    marks = [item.get_closest_marker(name) is not None for name in ("slow", "nightly")]
    return marks == [True, False]


def pytest_collection_finish(session):
    """Search for garbage from now on, and leave what was imported out of it.

    Loggers that pass nothing on to the root, as PyTorch has forty, are each given pytest's handlers
    and relieved of them six times a test, which takes half of what pytest itself does for it. What
    they pass on pytest hears at the root.
    """
    gc.freeze()
    gc.enable()
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.propagate = True


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests prepare and make again out of the user's cache, and share it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDUNLEARN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _made_once() -> Iterator[None]:
    """Build the command line once, where typer would for every call, and a kind of picture.

    Each where what makes it was imported.
    """
    with pytest.MonkeyPatch.context() as patch:
        if "typer.testing" in sys.modules:
            import typer.testing

            built = functools.cache(typer.testing._get_command)
            patch.setattr(typer.testing, "_get_command", built)
        if "experiments.federation.books" in sys.modules:
            from tests.support.drawn import draw_kinds_once

            draw_kinds_once(patch)
        yield
