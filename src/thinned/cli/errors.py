"""How the command ends after an error: one line on stderr, and an exit code."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections import UserDict
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup


def fail(text: str, code: int) -> NoReturn:
    """Print one line on stderr and exit."""
    print("thinned: " + " ".join(text.split()), file=sys.stderr)
    raise SystemExit(code)


NAMES = ("compare", "predict", "reproduce", "report", "methods", "bench", "about")
HELP = {"help_option_names": ["-h", "--help"]}


def described(text: str) -> tuple[str, str | None]:
    """The help of a command, with a line a paragraph, and its examples; from its docstring."""
    words, _, examples = inspect.cleandoc(text).partition("Examples:\n")
    help = "\n\n".join(" ".join(paragraph.split()) for paragraph in words.strip().split("\n\n"))
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    return help, "\n\n".join(["Examples:", *lines]) if lines else None


class Commands(UserDict[str, Any]):
    """The commands by name. The file of a command is imported when the command is first needed."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(NAMES))

    def __getitem__(self, name: str) -> Any:
        if self.data[name] is None:
            function = getattr(importlib.import_module(f"thinned.cli.{name}"), name)
            help, examples = described(function.__doc__ or "")
            alone = typer.Typer(add_completion=False)
            alone.command(name, help=help, epilog=examples, context_settings=HELP)(function)
            self.data[name] = typer.main.get_command(alone)
        return self.data[name]


class OneLine(TyperGroup):
    """Commands whose errors are one line on stderr; exit code 2 for a wrong call, 130 for Ctrl-C, else 1."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.commands = Commands()

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands, in the order of the help; imports none."""
        return list(NAMES)

    def main(self, *args: Any, standalone_mode: bool = True, **more: Any) -> Any:
        """Run the command line."""
        try:
            code = super().main(*args, **{**more, "standalone_mode": False})
        except (KeyboardInterrupt, typer.Abort):
            code = 130
        except BrokenPipeError:
            sys.stderr.close()  # the reader has gone
            raise SystemExit(1) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            fail(f"{where}{error.strerror or error}", 1)
        except Exception as error:
            fail(*_line_and_code(error))
        if code == 130:
            fail("stopped", 130)
        raise SystemExit(code if isinstance(code, int) else 0)


def _line_and_code(error: Exception) -> tuple[str, int]:
    """The line and the exit code for an error; an error of the program itself is raised again."""
    from thinned.lab.errors import CallError, LabError, missing

    if hasattr(error, "format_message"):  # of the command-line library
        return f"{error.format_message()} (see thinned --help)", int(getattr(error, "exit_code", 2))
    if isinstance(error, MemoryError):
        return "out of memory; try a smaller --hidden, --batch or data set", 1
    if isinstance(error, (CallError, ValueError, TypeError)):  # a value that an option cannot have
        return str(error), 2
    if isinstance(error, LabError):
        return str(error), 1
    if isinstance(error, ImportError):
        return missing(error), 1
    raise error
