#!/usr/bin/env bash
# pytest 9.2.0 with pytest-xdist 3.8.0: `--dist loadgroup` makes no groups, and says nothing.
#
# pytest-xdist adds a group's name to a test's `_nodeid`, which the scheduler reads. Since pytest 9.2 a test's
# name is built from `_id`: what is written to `_nodeid` is kept and never read. Tests of one group run on all
# workers, at the same time, and each worker makes anew what the group was to make once. With pytest 9.1.1
# the group holds.
#
# Seen: pytest 9.1.1: one group on 1 worker; pytest 9.2.0: one group on 2 workers.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
cat >"$there/test_one.py" <<'PY'
import os, pathlib, time
import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("n", range(8))
def test_it(n):
    time.sleep(0.2)
    (pathlib.Path(__file__).parent / os.environ["PYTEST_XDIST_WORKER"]).touch()
PY
workers() {
  rm -f "$there"/gw*
  (cd "$there" && v/bin/python -m pytest -q -p no:cacheprovider -n 2 --dist loadgroup test_one.py >/dev/null)
  find "$there" -maxdepth 1 -name 'gw*' | wc -l
}
"$there/v/bin/pip" install -q pytest==9.2.0 pytest-xdist==3.8.0
now=$(workers)
"$there/v/bin/python" -m pip install --quiet pytest==9.1.1
before=$(workers)
echo "pytest 9.1.1: one group on $before worker; pytest 9.2.0: one group on $now workers"
test "$before" = 1 && test "$now" = 2
