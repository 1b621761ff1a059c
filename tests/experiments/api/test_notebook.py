"""In a notebook: the bar, the scorecard, a strategy of its own, and no output beside them."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.experiments.api.test_run import SMALL

MISSING = [name for name in ("nbclient", "ipykernel") if find_spec(name) is None]
CELLS = [
    "%matplotlib inline\nimport fedunlearn\nfrom strategies.local_model.no_t import NoT",
    "class Mine(NoT):\n    'One of my own.'",
    f"run = fedunlearn.compare({SMALL!r}, strategies=[Mine], progress=True)\nrun",
    "run.plot();",
    f"fedunlearn.compare({SMALL!r}, strategies=['no-t'], engine__grid='ray', engine__workers=1);",
]
# In a process of its own: what a kernel leaves open would be an error here.
EXECUTE = """
import json, sys
import nbclient, nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

cells = [nbformat.v4.new_code_cell(text) for text in json.load(sys.stdin)]
notebook = nbformat.v4.new_notebook(cells=cells)
manager = AsyncKernelManager()
manager._kernel_spec = KernelSpec(
    argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
)
nbclient.NotebookClient(notebook, km=manager, timeout=300).execute()
print(json.dumps([cell.outputs for cell in notebook.cells]))
"""


@pytest.mark.slow
@pytest.mark.xdist_group("ray")  # one cluster at a time
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    bool(MISSING), reason=f"no {' and no '.join(MISSING)}; pip install {' '.join(MISSING)}"
)
def test_a_notebook_shows_bar_scorecard_and_picture_and_nothing_else(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE],
        input=json.dumps(CELLS),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = [output for outputs in json.loads(done.stdout.splitlines()[-1]) for output in outputs]
    assert all("data" in output for output in shown), shown
    bar, card, picture = (output["data"] for output in shown)
    assert "<progress" in bar["text/html"]
    assert "mine" in card["text/html"]
    assert "image/png" in picture
