"""The one exception meant for users, and the message for a missing package."""


class LabError(Exception):
    """What went wrong, where, and what to do, in one line. The command prints it and exits with 1."""


class CallError(LabError):
    """The call is wrong: a name, a column or a value that an option cannot have. The command exits with 2."""


def missing(error: ImportError) -> str:
    """A message: what is missing, and the command that installs it."""
    extra = "torch" if error.name == "torch" else "lab"
    return f'{error}; run pip install "thinned[{extra}]"'
