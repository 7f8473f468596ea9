"""Where and how a result was made: machine, versions, commit, threads, command."""

from __future__ import annotations

import functools
import importlib
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from thinned.lab.storage.remote import Remote


def command() -> str:
    """The command of this process, as typed in the current folder; it names no other folder."""
    program = Path(sys.argv[0]).name if sys.argv else ""
    return shlex.join(["thinned" if program in ("", "__main__.py") else program, *map(_here, sys.argv[1:])])


def _here(argument: str) -> str:
    """An argument with each path relative to the current folder, or cut to its last part."""
    option, is_, value = argument.rpartition("=")
    if "://" in value and not value.startswith("ray://"):
        return option + is_ + Remote(value).name
    path = Path(value)
    if not path.is_absolute():
        return argument
    inside = path.is_relative_to(Path.cwd())
    return option + is_ + (path.relative_to(Path.cwd()).as_posix() if inside else path.name)


def about() -> dict[str, Any]:
    """Machine, versions, commit, threads and command of this process."""
    return {**_machine(), "threads": _threads(), "command": command()}


@functools.cache
def _machine() -> dict[str, Any]:
    import thinned

    return {
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "thinned": getattr(thinned, "__version__", "unknown"),
        "commit": _commit(Path(thinned.__file__ or ".").parent),
    }


def processor() -> str:
    """The processor's name, where the system gives one."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, ValueError, StopIteration):
        return platform.processor() or platform.machine() or "unknown processor"


def _commit(folder: Path) -> str | None:
    """The git commit of this package's own checkout; None where it is installed.

    A virtual environment may lie in another project's checkout: there the package's files are not tracked.
    """
    git = ["git", "-C", str(folder)]
    tracked = [*git, "ls-files", "--error-unmatch", "__init__.py"]
    described = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        subprocess.run(tracked, capture_output=True, timeout=10, check=True)
        done = subprocess.run(described, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _threads() -> int:
    """The number of threads of the matrix library, else of its environment variable, else of cores."""
    try:
        pools = importlib.import_module("threadpoolctl").threadpool_info()
        pools = [pool["num_threads"] for pool in pools if pool.get("user_api") == "blas"]
        if pools:
            return max(pools)
    except ImportError:
        pass
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return os.cpu_count() or 1
