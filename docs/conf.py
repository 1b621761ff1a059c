"""Settings of the documentation: `sphinx-build -W docs docs/_build`."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import generate  # noqa: E402

project = "fedunlearn"
author = "the fedunlearn authors"
version = release = version_of("fedunlearn")
extensions = ["myst_parser", "sphinxcontrib.bibtex"]
bibtex_bibfiles = ["generated/papers.bib"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_show_copyright = False  # LICENSE says it
html_theme = "furo"
html_title = f"fedunlearn {version}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
templates_path = []
nitpicky = True

generate.write_all(HERE / "generated")
generate.write_leaderboard(HERE / "generated" / "extra")
html_extra_path = ["generated/extra"]
