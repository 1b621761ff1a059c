"""The ServerApp and the ClientApp: what ``flwr run`` and a deployment start.

Options come from Flower's run-config (``[tool.flwr.app.config]`` in pyproject.toml). What the two
are made of lies in :mod:`experiments.federation`.
"""

from __future__ import annotations

import logging

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from clients.app import make_client_app
from experiments.deployment.post import carry
from experiments.federation.participants import disposable, of_node

__all__ = ["client_app", "server_app"]

log = logging.getLogger("fedunlearn")

client_app = make_client_app(of_node, disposable=disposable, mods=(carry,))
server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what the run-config describes; ``out`` names the run folder.

    ``federation``, where it is given, is the folder of a deployed federation: nodes are known by
    its roster then.
    """
    from datetime import UTC, datetime
    from pathlib import Path

    from experiments.config.loading import from_run_config
    from experiments.federation.course import Course

    if context.run_config.get("federation"):
        from experiments.deployment.serving import serve

        serve(grid, context.run_config)
        return
    course = Course.of_run(from_run_config(context.run_config), lambda tick: log.info("%s", tick))
    course.check()
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    out = str(context.run_config.get("out") or f"runs/flwr-{stamp}")
    with course.begin(Path(out).absolute()) as books:
        course.conduct(grid, books, lambda: False)
    log.info("report: %s", books.folder.report)
