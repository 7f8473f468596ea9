"""Options that several commands have, and those that are settings of a run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from thinned.lab.training.config import SETTINGS, Config

Json = Annotated[bool, typer.Option("--json", help="print the result as JSON, and nothing else")]
DataDir = Annotated[
    Path | None, typer.Option(help="where mnist or cifar10 lies; else $THINNED_DATA, else a download")
]
SaveEvery = Annotated[float, typer.Option(min=0, help="seconds between checkpoints")]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="runs side by side, each with its share of the cores; by default 1, with --ray all CPUs",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="train on a Ray cluster: host:port, ray://host:port, auto, or local"
    ),
]
Loggers = Annotated[
    list[str] | None,
    typer.Option(
        "--logger",
        help="also log every run to tensorboard, mlflow or wandb; may be given several times; needs "
        "thinned[loggers]",
    ),
]


HINTS = get_type_hints(Config)


def with_settings(
    *names: str,
    after: str,
    default: Mapping[str, Any] | None = None,
    by_default: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator: the command takes these fields of `Config` as options, and gets them in `**settings`.

    Name, type, default and help of an option are the field's.

    Args:
        names: of the fields.
        after: the parameter behind which they stand in the help.
        default: defaults that are not the field's.
        by_default: what the help says of a default that is not fixed; the option is then None.
    """
    default, by_default = default or {}, by_default or {}

    def parameter(name: str) -> inspect.Parameter:
        kind, help = HINTS[name], SETTINGS[name].metadata["help"]
        value = default.get(name, SETTINGS[name].default)
        if get_args(kind)[-1:] == (Ellipsis,):  # sizes, given as 256,128
            kind = str
        if name in by_default:
            kind, value, help = kind | None, None, f"{help}; by default {by_default[name]}"
        return inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=value,
            annotation=Annotated[kind, typer.Option(help=help)],
        )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        found: list[inspect.Parameter] = []
        for own in inspect.signature(command).parameters.values():
            if own.kind is inspect.Parameter.VAR_KEYWORD:
                continue
            found.append(own.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[own.name]))
            if own.name == after:
                found += map(parameter, names)
        command.__signature__ = inspect.Signature(found)  # type: ignore[attr-defined]
        command.__annotations__ = {own.name: own.annotation for own in found} | {"return": None}
        return command

    return decorate
