"""Findings about other libraries run outside CI; here, that each is whole and listed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

_FINDINGS = Path(__file__).parents[1] / "findings"
_SCRIPTS = sorted(_FINDINGS.glob("*.sh"))


def test_the_page_lists_every_finding_once() -> None:
    listed = re.findall(r"^\| `([^`]+\.sh)` \|", (_FINDINGS / "README.md").read_text(), re.M)
    assert sorted(listed) == [script.name for script in _SCRIPTS]


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda script: script.stem)
def test_a_finding_pins_what_it_runs_and_leaves_us_out(script: Path) -> None:
    text = script.read_text()
    assert "set -euo pipefail" in text
    assert "mktemp -d" in text
    assert "# Seen: " in text
    (packages,) = re.findall(r"pip\" install -q (.+)", text)
    assert all("==" in package for package in packages.split())
    assert not re.search(
        r"^\s*(import|from) (strategies|clients|unlearning|experiments)", text, re.M
    )


@pytest.mark.skipif(
    not shutil.which("bash"), reason="there is no bash: install it to check scripts"
)
@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda script: script.stem)
def test_a_finding_is_a_script_that_bash_can_read(script: Path) -> None:
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
