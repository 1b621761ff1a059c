"""The commands ``fedunlearn report | families``; heavy imports are inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.answers import FAILED, complain, show_page, watched
from experiments.cli.options import Json, Overrides, words
from unlearning.errors import ConfigError, LedgerError

__all__ = ["families", "leaderboard", "report"]


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="A run folder; several make one page across them."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The page across several runs to write."),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option("--figures", metavar="FOLDER", help="Write its pictures there as PDF, too."),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Show it in a browser.")] = False,
) -> None:
    """Make the report again from what the run left on disk: as a page, as JSON, as LaTeX.

    Several runs make one page across them.
    """
    from experiments.runs.folder import RunFolder
    from experiments.runs.inspection import overview

    broken = ""
    if len(runs) == 1 and out is None:
        folder = RunFolder.open(runs[0])
        from experiments.reporting.report import render

        page, broken = render(folder.path, figures), overview(folder).broken
    else:
        if figures is not None:
            raise ConfigError("--figures writes the pictures of one run; name one run alone")
        from experiments.families.across import render_across

        page = render_across(runs, out)
    typer.echo(f"report: {page}")
    if show:
        show_page(page)
    if broken:
        complain(LedgerError(f"the ledger of {runs[0]} cannot be trusted: {broken}"))
        raise typer.Exit(FAILED)


def families(
    plan: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PLAN]",
            help="The TOML file; default: experiments/plans/digits.toml, or with --from none.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Default: runs/families-PLAN."),
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="RUN", help="A finished comparison to add; repeatable."),
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="A,B", help="Run these scenarios now; default: all.")
    ] = None,
    overrides: Overrides = None,
    show: Annotated[bool, typer.Option("--open", help="Show it in a browser.")] = False,
    as_json: Json = False,
) -> None:
    """Compare the families of strategies over many scenarios, and test the surveys' claims.

    Scenarios that are in the folder already are kept, so an interrupted comparison goes on.
    """
    from experiments.api import calls
    from experiments.families.plan import Plan, default_out, read_plan, usual

    path = plan or usual(runs or ())
    wanted = Plan() if path is None else read_plan(path)
    names = () if only is None else words(only, "--only")

    def tell(text: str) -> None:
        typer.echo(text, err=True)

    with watched() as observer:
        made = calls.families(
            wanted.with_overrides(overrides or ()),
            only=names,
            runs=runs or (),
            out=out or default_out(path),
            progress=observer,
            tell=tell,
        )
    if as_json:
        typer.echo((made.path / "families.json").read_text(encoding="utf-8"))
    else:
        typer.echo(f"page: {made.report()}")
    if show:
        show_page(made.report())


def leaderboard(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Folders of finished comparisons, or lists of recorded ones (.toml).",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The page to write.")] = Path(
        "leaderboard.html"
    ),
    show: Annotated[bool, typer.Option("--open", help="Show it in a browser.")] = False,
) -> None:
    """Put many comparisons on one sortable page: forgetting, utility, cost and claim."""
    from experiments.reporting.leaderboard import leaderboard as build

    page = build(runs, out)
    typer.echo(f"leaderboard: {page}")
    if show:
        show_page(page)
