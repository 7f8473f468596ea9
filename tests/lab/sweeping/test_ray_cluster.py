"""Sweeps on a Ray cluster of two nodes: the results are those of this machine, whichever process dies."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from helpers.commands import LIMIT, SWEEP, call, outcome, start, wait_for

pytest.importorskip("ray")
pytest.importorskip("sklearn")

from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.reproduce.order import Order
from thinned.lab.storage import run as runs
from thinned.lab.sweeping import ray_cluster, sweep

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
for word in sys.stdin:  # until the tests end, however they end
    if word == "kill\\n":
        cluster.remove_node(second, allow_graceful=False)
    else:
        second = cluster.add_node(num_cpus=1)
    print("done", flush=True)
cluster.shutdown()
"""

# Runs that wait after their first checkpoint until the file "go" is there; and one that fails.
SCRIPT = """
import sys
import time
from pathlib import Path
from rich.console import Console
from thinned.lab.sweeping import sweep
from thinned.lab.sweeping.job import Job
from thinned.lab.data.registry import load
from thinned.lab.grids.grid import GridConfig, GridTrainer
from thinned.lab.reporting.progress_bars import Lines
from thinned.lab.reproduce.order import Order


class Broken(GridTrainer):
    def build(self):
        raise RuntimeError("no luck")


class Waiting(GridTrainer):
    def next_epoch(self, tell):
        while self.epoch > 0 and not GO.exists():
            time.sleep(0.05)
        return super().next_epoch(tell)


GO = Path(__file__).resolve().with_name("go")
DATA = load("digits")
SETTINGS = {"data": "digits", "hidden": (64,), "method": "dropout", "epochs": 10, "batch": 64}
CONFIGS = [
    GridConfig(fingerprint=DATA.fingerprint, system=str(i), seed=i, **SETTINGS) for i in range(4)
]
JOBS = [Job(config, DATA, Broken if i == 3 else Waiting) for i, config in enumerate(CONFIGS)]


def train(out, ray, progress):
    order = Order("no experiment", "smoke", tuple(range(4)))
    return sweep.run(JOBS, out, progress, save_every=0, ray=ray)


if __name__ == "__main__":
    train(Path(sys.argv[1]), sys.argv[2], Lines(Console(stderr=True)))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes of one CPU each: tell it "kill" or "add". On a busy machine Ray may need a second start."""
    log = tmp_path_factory.mktemp("cluster") / "stderr"
    for _ in range(3):
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-c", CLUSTER], text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
            )  # fmt: skip
        lines = (line.strip() for line in process.stdout)
        process.address = next((line for line in lines if re.fullmatch(r"[\d.]+:\d+", line)), None)
        if process.address:
            break
        process.communicate()
    else:
        pytest.fail(f"Ray starts no cluster here: {log.read_text()[-2000:]}")
    with process:
        yield process
        process.stdin.close()


def tell(cluster, word):
    cluster.stdin.write(f"{word}\n")
    cluster.stdin.flush()
    assert next(line for line in cluster.stdout if line == "done\n")


def test_a_driver_that_is_stopped_and_killed_goes_on(tmp_path, cluster):
    order = Order("mnist-gaussian", "smoke", (0, 1))  # of four seeds
    alone = outcome(sweep.run(order.jobs(), tmp_path / "alone", Progress()))
    out = tmp_path / "thinned-runs" / "mnist-gaussian-smoke"
    done = {}
    for sent, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        with start(tmp_path, *SWEEP, "--ray", cluster.address) as process:
            wait_for(process, lambda more=len(done) + 2: len(list(out.glob("*/result.json"))) >= more)
            process.send_signal(sent)
            _, err = process.communicate(timeout=LIMIT)
        assert process.returncode == code, err
        assert {path: path.stat().st_mtime_ns for path in done} == done
        done = {path: path.stat().st_mtime_ns for path in out.glob("*/result.json")}
        assert 2 <= len(done) < 12, "too fast to be cut off"
    with start(tmp_path, *SWEEP, "--ray", cluster.address) as process:
        printed, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    assert "standard" in printed
    ended = [line for line in err.splitlines() if line.startswith("[")]
    assert len(ended) <= 12 - len(done)
    assert "so far: " in err
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert outcome([runs.read(out / name) for name, *_ in alone]) == alone
    stored = [runs.read(path.parent) for path in out.glob("*/config.json")]
    assert [run.status for run in stored] == ["done"] * 12
    commands = {json.loads(path.read_text())["about"]["command"] for path in out.glob("*/result.json")}
    assert all(command.startswith("thinned reproduce mnist-gaussian") for command in commands)


def answer(listener, says):
    """Answer one caller, and keep the connection open."""
    line, _ = listener.accept()
    with line:
        line.sendall(says)
        while line.recv(100):
            pass


def one_line(address):
    """The one line of a command that cannot connect; it comes soon."""
    began = time.monotonic()
    result = call("reproduce", "mnist-gaussian", "--budget", "smoke", "--ray", address)
    assert time.monotonic() - began < 60
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    return line


def test_an_address_where_nothing_answers_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
            assert re.match(
                f"thinned: --ray {address}: Connection refused; start a cluster", one_line(address)
            )
        taken.listen()
        for says, reason in (
            (b"", "no answer"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there is no Ray"),
        ):
            thread = threading.Thread(target=answer, args=(taken, says), daemon=True)
            thread.start()
            assert f": {reason}; start a cluster" in one_line(f"127.0.0.1:{port}")
            thread.join()
    for wrong in ("nowhere", "host:port", "ray://"):
        assert f"--ray must be local, auto, host:port or ray://host:port, got '{wrong}'" in one_line(wrong)


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert one_line("auto") == 'thinned: --ray needs Ray; run pip install "thinned[ray]"'


def test_why_there_is_no_connection():
    assert "ray start --head" in ray_cluster._why(
        "auto", ConnectionError("Could not find\nany running instance")
    )
    why = ray_cluster._why("h:1", RuntimeError("Version mismatch:\n  Ray: 1\n"))
    assert re.match("Ray does not connect: Ray: 1(; if it asks for a token, set RAY_AUTH_MODE=token)?$", why)


# The last test: those before it need both nodes.
def test_a_node_dies_and_its_runs_are_done_by_the_other(tmp_path, cluster):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    namespace = {"__name__": "script", "__file__": str(script)}
    exec(SCRIPT, namespace)
    go = tmp_path / "go"
    go.touch()
    alone = outcome(namespace["train"](tmp_path / "alone", None, Progress()))
    go.unlink()
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, str(script), str(out), cluster.address], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        wait_for(process, lambda: len(list(out.glob("*/last.npz"))) == 2)
        assert not list(out.glob("*/result.json"))  # both are on their way, one on each node
        tell(cluster, "kill")
        go.touch()
        _, err = process.communicate(timeout=LIMIT)
        tell(cluster, "add")
    assert process.returncode == 0, err
    assert (
        len(re.findall(r"^thinned: a (?:node|worker) died; dropout-seed\S+ goes on in another", err, re.M))
        == 1
    )
    assert len(re.findall(r"^\[\d/4\] ", err, re.M)) == 4, err
    assert "failed: RuntimeError: no luck" in err
    assert re.search(r"\[1/4\] .*; about \d+ (s|min) left", err), err
    stored = [runs.read(out / name) for name, *_ in alone]
    assert outcome(stored) == alone
    assert [run.status for run in stored] == ["done", "done", "done", "failed"]
    assert {run.result["about"]["threads"] for run in stored[:3]} == {1}
    assert not any(line for line in err.splitlines() if not re.match(r"thinned: |\[\d", line)), err
