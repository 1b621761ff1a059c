"""What every page shares: its head, what it may do, and how a template becomes HTML."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from experiments.reporting.look import SCRIPT, STYLE

__all__ = ["HEAD", "WARNINGS", "rendered"]

HEAD = r"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="color-scheme" content="light dark">
<title>{{ title }} &ndash; {{ kind }}</title>
<link rel="icon" href="data:,">
<style>
{{ style }}</style>
</head>
"""

WARNINGS = r"""{% if warnings %}
<div class="warnings" role="note" aria-labelledby="limits">
<h3 id="limits">Read with care</h3>
<ul>
{% for warning in warnings %}<li>{{ warning }}</li>
{% endfor %}
</ul>
</div>
{% endif %}
"""


def rendered(template: str, content: Mapping[str, object], *, kind: str, style: str = "") -> str:
    """Return a page; only its own script may run, and nothing may be asked for.

    Parameters
    ----------
    template : str
        Jinja; :data:`HEAD` and :data:`WARNINGS` are parts of it.
    content : mapping
        What the template names; a name without an entry is an error.
    kind : str
        What the page is, behind its title.
    style : str
        Rules of this page alone, after the shared ones.
    """
    allowed = b64encode(sha256(SCRIPT.encode()).digest()).decode()
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        f"form-action 'none'; script-src 'sha256-{allowed}'"
    )
    return _compiled(template).render(
        {
            **content,
            "kind": kind,
            "policy": policy,
            "style": Markup(STYLE + style),
            "script": Markup(SCRIPT),
        }
    )


@lru_cache(maxsize=8)  # compiling takes longer than filling in, and a process writes many pages
def _compiled(template: str) -> Template:
    templates = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return templates.from_string(template)
