"""The command: called here, or started as a process of its own."""

import signal
import subprocess
import sys
import time

from typer.testing import CliRunner

from thinned.cli import app

LIMIT = 300  # seconds for a process on a busy machine; only a test that fails takes as long

# A sweep of twelve runs, with many checkpoints.
SWEEP = ("reproduce", "mnist-gaussian", "--budget", "smoke", "--seeds", "4", "--save-every", "0.1")


def call(*arguments):
    """What the command prints, and how it ends."""
    return CliRunner().invoke(app, list(map(str, arguments)))


def start(cwd, *arguments):
    """The command in a process of its own."""
    # A job in the background may ignore Ctrl-C; a user's command does not.
    hear = None if sys.platform == "win32" else lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(
        [sys.executable, "-m", "thinned", *arguments], cwd=cwd, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=hear,
    )  # fmt: skip


def wait_for(process, there):
    """Wait until `there()` is true; a process that ends before, or hangs, fails the test."""
    until = time.monotonic() + LIMIT
    while not there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def outcome(stored):
    """What must be equal, wherever it was trained: all but times and folders."""
    found = []
    for run in stored:
        result = {k: v for k, v in run.result.items() if k not in ("about", "seconds_per_epoch")}
        history = repr({k: v for k, v in run.history.items() if k != "seconds"})  # as text, nan equals nan
        config = (run.folder / "config.json").read_bytes()
        found.append((run.folder.name, config, history, result, run.failure))
    return found
