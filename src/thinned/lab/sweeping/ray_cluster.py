"""Ray: the runs of a sweep as tasks on the machines of a cluster.

The data goes into Ray's object store once: so nodes need no copy and no download of their own, the processes
of a node share one copy, and every run sees the same bytes. Results go where the command says: a folder that
all nodes share, or a URL.
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

ANSWER = 5.0  # seconds for a machine to answer
FAREWELL = 10.0  # seconds for the tasks of a stopped sweep to end
PATIENCE = 30.0  # seconds until a process of a killed sweep has let go of its run
CLIENT_PORT = 10001  # of ray://
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # RFC 9113, section 3.4
SETTINGS = 4  # the kind of frame that answers it
STOPS = ("begin", "step", "row")  # news after which a run can stop: its checkpoint is all that counts
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # a cluster of our own reports to nobody
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # what Ray says of its processes, in pages
}
DEATHS = {"NodeDiedError": "a node died", "OutOfMemoryError": "a node ran out of memory"}


@contextlib.contextmanager
def connected(address: str, cores: int) -> Iterator[Any]:
    """Ray, connected to the cluster at `address`; `cores` are those of `"local"`.

    Args:
        address: `"local"`, `"auto"`, `host:port`, or `ray://host:port`.

    Raises:
        LabError: Ray is not installed, nothing answers there, or it is another version of Ray.
    """
    with environment(QUIET), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray, on its own future
        try:
            import ray
        except ImportError:
            raise LabError('--ray needs Ray; run pip install "thinned[ray]"') from None
        if ray.is_initialized():  # by the caller, who also ends it
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
    """The CPUs of each node that has any."""
    every = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return [count for count in every if count] or [1]


class Stopped(BaseException):
    """The sweep was stopped, so this run stops too."""


class Mail:
    """An actor between the tasks and the driver: it collects news, and knows whether the sweep goes on."""

    def __init__(self) -> None:
        self.waiting: list[Message] = []
        self.open = True

    def put(self, message: Message) -> bool:
        """Add news; returns whether the sweep goes on."""
        self.waiting.append(message)
        return self.open

    def take(self) -> list[Message]:
        """The news since the last call, in order."""
        taken, self.waiting = self.waiting, []
        return taken

    def close(self) -> None:
        """The sweep was stopped."""
        self.open = False


class Cluster:
    """Tasks of Ray, a run each; at most `count` at once, each with `threads` CPUs."""

    def __init__(
        self, ray: Any, todo: Sequence[Job], out: Folder, save_every: float, count: int, threads: int
    ) -> None:
        self.ray, self.count = ray, count
        self.job = list(todo), out if not isinstance(out, Path) else out.resolve(), save_every
        # A run that was cut off is given out again by the sweep, which also tells of it, and not by Ray.
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
        """Ask the tasks to end, and wait until they have; Ctrl-C ends the wait.

        No task is cancelled: where its reply arrives at the same moment, Ray aborts the driver ("Tried to
        complete task that was not pending", seen with Ray 2.60). A task that does not end in time ends with
        the connection.
        """
        if not self.busy:
            return
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.get(self.mail.close.remote(), timeout=FAREWELL)
            self.ray.wait(list(self.busy), num_returns=len(self.busy), timeout=FAREWELL)

    def start(self, run: int) -> bool:
        """Submit run number `run`."""
        if len(self.busy) >= self.count:
            return False
        self.busy[self.task.remote(run, *self.common)] = run
        return True

    def messages(self) -> Iterator[Message]:
        """What the tasks sent, then which of them ended: a task has sent all before it ends."""
        ended, _ = self.ray.wait(list(self.busy), num_returns=1, timeout=0.2)
        with contextlib.suppress(self.ray.exceptions.RayError):  # the mail was lost, no run is
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
    """What a task does: one run. Returns what the user should know and all runs have in common, or ""."""
    import ray

    def send(call: str, arguments: tuple[Any, ...]) -> None:
        goes_on = True
        with contextlib.suppress(ray.exceptions.RayError):  # nobody listens for the moment; the run goes on
            goes_on = ray.get(mail.put.remote(Message(run, call, arguments)))
        if not goes_on and call in STOPS:
            raise Stopped

    sys.argv = argv  # results name the command
    if "torch" in sys.modules:  # imported later, it asks the environment
        sys.modules["torch"].set_num_threads(threads)
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with environment(threads_of(threads)), limited(threads):
                train_one(todo[run], out, Sender(send), save_every)
            return ""
        except BusyError as error:  # by a process of a sweep that was killed: it ends, too
            if time.monotonic() > until:
                return str(error)
            time.sleep(0.5)
        except LabError as error:
            return str(error)
        except Stopped:
            return ""


def _answers(address: str) -> None:
    """Whether a gRPC server listens at an address that names a machine; Ray itself would wait for minutes."""
    if address in ("local", "auto") or os.environ.get("RAY_USE_TLS") == "1":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host and address.startswith("ray://"):
        host, port = port, str(CLIENT_PORT)
    if not host or not port.isdigit():
        raise LabError(f"--ray: expected local, auto, host:port or ray://host:port, got {address!r}")
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
    """The reason why Ray did not connect, in a line."""
    if address == "auto" and isinstance(error, ConnectionError):
        return "no Ray cluster runs here; start one with ray start --head, or give host:port or local"
    hint = "" if "RAY_AUTH_MODE" in os.environ else "; if it asks for a token, set RAY_AUTH_MODE=token"
    return f"Ray does not connect: {_last_line(error)}{hint}"


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
