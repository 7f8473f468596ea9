"""The command `thinned`: compare, predict, reproduce, report, methods, bench, about; a file each."""

from __future__ import annotations

from typing import Annotated

try:
    import typer
except ImportError:  # the library without its command
    raise SystemExit('thinned: the command needs more packages; run pip install "thinned[lab]"') from None

from thinned.cli.errors import HELP, OneLine

app = typer.Typer(
    cls=OneLine,
    help="Dropout and its whole family: what it does for a network.",
    context_settings=HELP,
    add_completion=True,
)


def _version(asked: bool) -> None:
    if asked:
        from thinned import __version__

        print(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Dropout and its whole family: what it does for a network."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def main() -> None:
    """Run the command."""
    app()
