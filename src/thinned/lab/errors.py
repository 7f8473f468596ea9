"""The one exception that is meant for a user's eye, and what to do where a package is missing."""


class LabError(Exception):
    """One clear line: what went wrong, where, and what to do. The command prints it and exits with 1."""


def missing(error: ImportError) -> str:
    """What is missing, and the command that installs it."""
    extra = "torch" if error.name == "torch" else "lab"
    return f'{error}; run pip install "thinned[{extra}]"'
