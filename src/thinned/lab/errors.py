"""The one exception that is meant for a user's eye."""


class LabError(Exception):
    """One clear line: what went wrong, where, and what to do. The command prints it and exits with 1."""
