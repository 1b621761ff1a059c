"""Which tests may run beside each other, when pytest-xdist runs them on several workers."""

import os

import pytest

# Before anything imports NumPy or PyTorch: workers with a thread for every core starve each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """Keep tests that share what their module made once on one worker, as one group.

    A group of its own comes from ``xdist_group``; ``--dist loadgroup`` heeds it.
    """
    for item in items:
        given = item._fixtureinfo.name2fixturedefs.values()
        shares = any(found[-1].scope == "module" for found in given if found)
        if shares and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.location[0]))
