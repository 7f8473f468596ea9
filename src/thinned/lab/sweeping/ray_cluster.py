"""The runs of a sweep as Ray tasks, on the machines of a cluster.

The data goes into Ray's object store, once. Nodes need no copy and no download, the processes of a node share
one copy, and every run sees the same bytes. The results go to a folder that all nodes share, or to a URL.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from thinned.lab.errors import LabError
from thinned.lab.storage.remote import Folder
from thinned.lab.storage.run import BusyError
from thinned.lab.sweeping.job import Job
from thinned.lab.sweeping.worker import Message, Sender, environment, threads_of, train_one
from thinned.lab.training.train import limited

ANSWER = 5.0  # seconds until an address must answer
FAREWELL = 10.0  # seconds that a stopped sweep waits for its tasks
PATIENCE = 30.0  # seconds until a task of a killed sweep must have released its run
CLIENT_PORT = 10001  # default port of ray://
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # RFC 9113, section 3.4
SETTINGS = 4  # the type of the frame that answers it
STOPS = ("begin", "step", "row")  # messages after which a run may stop: its checkpoint is enough to continue
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no usage reports from a cluster that the command starts
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # no pages of logs of Ray's processes
}
DEATHS = {"NodeDiedError": "a node died", "OutOfMemoryError": "a node ran out of memory"}


@contextlib.contextmanager
def connected(address: str, cores: int) -> Iterator[Any]:
    """The module `ray`, connected to the cluster at `address`.

    Args:
        address: `"local"`, `"auto"`, `host:port`, or `ray://host:port`.
        cores: the number of CPUs of a `"local"` cluster.

    Raises:
        LabError: Ray is not installed, nothing answers at the address, or another version of Ray does.
    """
    with environment(QUIET), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's warnings about its own future
        try:
            import ray
        except ImportError:
            raise LabError('--ray needs Ray; run pip install "thinned[ray]"') from None
        if ray.is_initialized():  # by the caller, who also closes the connection
            yield ray
            return
        _answers(address)
        own: dict[str, Any] = {"num_cpus": cores, "include_dashboard": False} if address == "local" else {}
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
        except Exception as error:
            raise LabError(f"--ray {address}: {_why(address, error)}") from None
        try:
            yield ray
        finally:
            ray.shutdown()


def cpus(ray: Any) -> list[int]:
    """The number of CPUs of each node that has any."""
    every = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return [count for count in every if count] or [1]


class Stopped(BaseException):
    """Raised inside a run after its sweep was stopped."""


class Mail:
    """An actor that holds the messages of the tasks for the driver, and knows whether the sweep goes on."""

    def __init__(self) -> None:
        self.waiting: list[Message] = []
        self.open = True

    def put(self, message: Message) -> bool:
        """Add a message; returns whether the sweep goes on."""
        self.waiting.append(message)
        return self.open

    def take(self) -> list[Message]:
        """The messages since the last call, in order."""
        taken, self.waiting = self.waiting, []
        return taken

    def close(self) -> None:
        """Note that the sweep was stopped."""
        self.open = False


class Cluster:
    """At most `count` Ray tasks at once, with `threads` CPUs each. A task trains one run."""

    def __init__(
        self, ray: Any, todo: Sequence[Job], out: Folder, save_every: float, count: int, threads: int
    ) -> None:
        self.ray, self.count = ray, count
        self.job = list(todo), out if not isinstance(out, Path) else out.resolve(), save_every
        # Ray retries no task: the sweep itself submits it again, and reports that.
        self.task = ray.remote(_train).options(num_cpus=threads, max_retries=0)
        self.threads = threads
        self.busy: dict[Any, int] = {}

    def __enter__(self) -> Cluster:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self.ray.get_runtime_context().get_node_id(), soft=True)
        mail = self.ray.remote(Mail).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here)
        self.mail = mail.remote()
        todo, out, save_every = self.job
        self.common = self.ray.put(todo), out, save_every, self.threads, self.mail, list(sys.argv)
        return self

    def __exit__(self, *error: Any) -> None:
        """Ask the tasks to stop, and wait until they have ended. Ctrl-C ends the wait.

        No task is cancelled: if its reply arrives at that moment, Ray aborts this process ("Tried to complete
        task that was not pending", Ray 2.60). A task that does not end in time is ended by Ray when the
        connection closes.
        """
        if not self.busy:
            return
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.get(self.mail.close.remote(), timeout=FAREWELL)
            self.ray.wait(list(self.busy), num_returns=len(self.busy), timeout=FAREWELL)

    def start(self, run: int) -> bool:
        """Submit run number `run`; False where `count` tasks are busy."""
        if len(self.busy) >= self.count:
            return False
        self.busy[self.task.remote(run, *self.common)] = run
        return True

    def messages(self) -> Iterator[Message]:
        """The messages of the tasks, then the ends of tasks: a task sends all its messages before it ends."""
        ended, _ = self.ray.wait(list(self.busy), num_returns=1, timeout=0.2)
        with contextlib.suppress(self.ray.exceptions.RayError):  # messages are lost, but no run is
            yield from self.ray.get(self.mail.take.remote())
        for task in ended:
            run = self.busy.pop(task)
            try:
                error_text = self.ray.get(task)
                yield Message(run, "error", (error_text,)) if error_text else Message(run, "free")
            except self.ray.exceptions.RayTaskError as error:
                yield Message(run, "error", (f"a node cannot train: {_last_line(error)}",))
            except self.ray.exceptions.RayError as error:
                yield Message(run, "dead", (DEATHS.get(type(error).__name__, "a worker died"),))


def _train(
    run: int,
    todo: Sequence[Job],
    out: Folder,
    save_every: float,
    threads: int,
    mail: Any,
    argv: list[str],
) -> str:
    """The work of a task: train one run. Returns the text of an error that all runs have in common, or ""."""
    import ray

    def send(call: str, arguments: tuple[Any, ...]) -> None:
        goes_on = True
        with contextlib.suppress(ray.exceptions.RayError):  # Mail is being restarted; the run goes on
            goes_on = ray.get(mail.put.remote(Message(run, call, arguments)))
        if not goes_on and call in STOPS:
            raise Stopped

    sys.argv = argv  # each result names the command
    if "torch" in sys.modules:  # if imported later, it reads the environment
        sys.modules["torch"].set_num_threads(threads)
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with environment(threads_of(threads)), limited(threads):
                train_one(todo[run], out, Sender(send), save_every)
            return ""
        except BusyError as error:  # a task of a killed sweep still trains it, and will end
            if time.monotonic() > until:
                return str(error)
            time.sleep(0.5)
        except LabError as error:
            return str(error)
        except Stopped:
            return ""


def _answers(address: str) -> None:
    """Check that a gRPC server answers at an address with a host: Ray itself would wait for minutes."""
    if address in ("local", "auto") or os.environ.get("RAY_USE_TLS") == "1":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host and address.startswith("ray://"):
        host, port = port, str(CLIENT_PORT)
    if not host or not port.isdigit():
        raise LabError(f"--ray must be local, auto, host:port or ray://host:port, got {address!r}")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER) as line:
            line.settimeout(ANSWER)
            line.sendall(HELLO)
            frame = line.makefile("rb").read(9)
        if len(frame) < 9 or frame[3] != SETTINGS:
            raise ConnectionError(0, "what answers there is no Ray")
    except (OSError, OverflowError) as error:
        reason = "no answer" if isinstance(error, TimeoutError) else getattr(error, "strerror", "") or error
        raise LabError(
            f"--ray {address}: {reason}; start a cluster there with ray start --head --port={port}, or give "
            "--ray local"
        ) from None


def _why(address: str, error: Exception) -> str:
    """The reason why Ray did not connect, in one line."""
    if address == "auto" and isinstance(error, ConnectionError):
        return "no Ray cluster runs here; start one with ray start --head, or give host:port or local"
    hint = "" if "RAY_AUTH_MODE" in os.environ else "; if it asks for a token, set RAY_AUTH_MODE=token"
    return f"Ray does not connect: {_last_line(error)}{hint}"


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
