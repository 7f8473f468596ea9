"""The queue: what it finds, in which order, what it publishes, and that it goes on where it was."""

import json
import signal
import sys
from types import SimpleNamespace

import pytest
from helpers.commands import call, outcome, start, wait_for
from helpers.recorder import Recorder

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from thinned.lab import experiments
from thinned.lab.errors import LabError
from thinned.lab.reproduce import order, queue, results_page
from thinned.lab.reproduce.order import Order
from thinned.lab.storage.remote import folder
from thinned.lab.sweeping import sweep

ORDERS = [Order("mnist-gaussian", "smoke", (0, 1)), Order("linear-theory", "smoke", (0,))]
QUEUE = ("reproduce", "mnist-gaussian", "--queue", "--budget", "smoke", "--seeds", 2, "--out", "runs")


@pytest.fixture
def published(monkeypatch, tmp_path):
    """A folder in which smoke may be published."""
    monkeypatch.setattr(order, "UNPUBLISHED", ())
    return tmp_path / "docs" / "results"


def rows(folder):
    """The published rows of mnist-gaussian, without what depends on time and place."""
    found = results_page.read(folder / "mnist-gaussian.json")
    return {row["system"]: (row["seeds"], row["test_error"], row["figures"], row["lost"]) for row in found}


def test_the_queue_has_all_runs_shortest_first(tmp_path):
    found = queue.queue(ORDERS, tmp_path, None)
    assert len(found.waiting) == sum(len(asked.jobs()) for asked in ORDERS)
    times = [one.seconds for one in found.waiting]
    assert times == sorted(times)
    assert {one.out.name for one in found.waiting} == {"mnist-gaussian-smoke", "linear-theory-smoke"}
    for one in found.waiting:
        assert one.asked.jobs()[one.number].config == one.config
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_partly_trained_has_less_time_left(tmp_path):
    (asked,) = ORDERS[:1]
    before = queue.queue([asked], tmp_path, None).waiting[-1]
    job = asked.jobs()[before.number]
    trainer = job.trainer(job.config, job.dataset)
    with before.run.locked():
        trainer.next_epoch(lambda done, loss: None)
        before.run.save(trainer.checkpoint())
        found = queue.queue([asked], tmp_path, None)
        assert before.config not in [one.config for one in found.waiting]
        assert found.left_out == [f"{before.run.folder}: another process trains this run"]
    (after,) = [one for one in queue.queue([asked], tmp_path, None).waiting if one.config == before.config]
    assert after.seconds == pytest.approx(before.seconds * (1 - 1 / job.config.epochs))


def test_each_row_is_published_when_it_ends_and_seeds_join(tmp_path, published):
    whole = sweep.run(ORDERS[0].jobs(), tmp_path / "whole")
    kept = order.record(ORDERS[0], ORDERS[0].jobs())
    order.publish(tmp_path / "all" / "results", kept, whole)
    first = Order("mnist-gaussian", "smoke", (0,))
    for asked, root in ((first, tmp_path / "a"), (ORDERS[0], tmp_path / "b")):
        found = queue.queue([asked], root, published)
        assert {one.config.seed for one in found.waiting} == {asked.seeds[-1]}
        seen = []
        progress = Recorder()
        progress.end = lambda run, seen=seen: seen.append(len(rows(published)))
        queue.run(found, progress, count=1, save_every=30, results=published)
        assert seen == ([0, 1, 2] if asked is first else [3, 3, 3])
        assert not queue.queue([asked], root, published).waiting
    assert rows(published) == rows(tmp_path / "all" / "results")
    assert (published.parent / "results.md").exists()


def test_a_trained_run_that_was_not_published_is_published(tmp_path, published):
    out = tmp_path / order.default_out(ORDERS[0]).name
    sweep.run(ORDERS[0].jobs(), out)
    found = queue.queue(ORDERS[:1], tmp_path, published)
    assert (found.waiting, len(found.finished)) == ([], len(ORDERS[0].jobs()))
    assert "6 runs trained, not published" in queue.table(found, 1)[1]
    queue.run(found, Recorder(), count=1, save_every=30, results=published)
    assert {seeds for seeds, *_ in ((tuple(row[0]),) for row in rows(published).values())} == {(0, 1)}
    again = queue.queue(ORDERS[:1], tmp_path, published)
    assert (again.waiting, again.finished) == ([], [])


def test_a_row_of_several_seeds_together_is_trained_again_if_seeds_are_missing(tmp_path, published):
    out = tmp_path / order.default_out(ORDERS[0]).name
    stored = sweep.run(ORDERS[0].jobs(), out)
    order.publish(published, order.record(ORDERS[0], ORDERS[0].jobs()), stored)
    path = published / "mnist-gaussian.json"
    older = json.loads(path.read_text())
    for row in older["rows"]:
        del row["each"]  # as rows were before
    path.write_text(json.dumps(older))
    more = Order("mnist-gaussian", "smoke", (0, 1, 2))
    assert not queue.queue(ORDERS[:1], tmp_path / "new", published).waiting
    assert {one.config.seed for one in queue.queue([more], tmp_path / "new", published).waiting} == {0, 1, 2}


def test_what_cannot_be_queued_says_why(tmp_path, monkeypatch):
    with pytest.raises(LabError, match="publish must have the budget quick or paper, got smoke"):
        queue.queue(ORDERS, tmp_path, tmp_path)
    only = [Order(asked.experiment, "smoke", (0,), only=("Gaussian",)) for asked in ORDERS]
    found = queue.queue(only, tmp_path, None)
    assert {one.system for one in found.waiting} == {"Gaussian noise"}
    assert found.left_out == []
    with pytest.raises(LabError, match="only must be a part"):
        queue.queue(only[1:], tmp_path, None)
    with pytest.raises(LabError, match="other processes see"):
        queue.queue(ORDERS, folder("memory://runs"), None)
    on_torch = [Order("linear-theory", "smoke", (0,), engine="torch"), *ORDERS[:1]]
    assert queue.queue(on_torch, tmp_path, None).left_out == [
        "linear-theory: engine must be left out for linear-theory: it trains no network"
    ]


def test_the_table_has_a_row_for_each_system(tmp_path):
    found = queue.queue([Order("mnist-gaussian", "smoke", (0, 1, 2, 5))], tmp_path, None)
    shown, text = queue.table(found, 2)
    assert [row[0] for row in shown] == ["mnist-gaussian"] * 3
    assert {row[2] for row in shown} == {"0–2, 5"}
    assert text.startswith("12 runs left, about ")
    assert text.endswith(" with 2 workers of one thread")


def test_workers_leave_cores_free(monkeypatch):
    monkeypatch.setattr(queue, "cores", lambda: 4)
    assert [queue.workers(free) for free in (0, 1, 4, 9)] == [4, 3, 1, 1]
    assert queue.workers(3, 2) == 2


def test_the_command_shows_trains_and_has_nothing_left(in_tmp):
    arguments = ("reproduce", "--queue", "--budget", "smoke", "--seeds", 1, "--only", "Gaussian noise")
    shown = call(*arguments, "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert "mnist-gaussian" in shown.stdout
    assert "1 run left, about" in shown.stdout.splitlines()[-1]
    assert shown.stdout.splitlines()[-1].endswith("; nothing was trained")
    assert list(in_tmp.iterdir()) == []
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    assert "Gaussian noise: test error" in done.stderr
    assert "0 runs left" in call(*arguments, "--dry-run").stdout
    assert call("report", "thinned-runs/mnist-gaussian-smoke").exit_code == 0


def test_the_command_refuses_ray():
    assert call("reproduce", "--queue", "--ray", "local").stderr.startswith("thinned: ray must be left out")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for processes there")
def test_ctrl_c_ends_in_order_and_the_same_command_goes_on(tmp_path):
    process = start(tmp_path, *map(str, QUEUE), "--save-every", "0.1")
    out = tmp_path / "runs" / "mnist-gaussian-smoke"
    wait_for(process, lambda: list(out.glob("*/result.json")))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "the same command continues where it left off" in errors
    asked = Order("mnist-gaussian", "smoke", (0, 1))
    left = queue.queue([asked], tmp_path / "runs", None)
    assert left.waiting
    assert left.finished
    again = start(tmp_path, *map(str, QUEUE))
    again.communicate(timeout=300)
    assert again.returncode == 0
    todo = asked.jobs()
    whole = sweep.run(todo, tmp_path / "whole")
    assert outcome(sweep.run(todo, out)) == outcome(whole)


def test_what_is_most_wanted_comes_first():
    def waiting(experiment, system, seconds, seed=0):
        asked, config = SimpleNamespace(experiment=experiment), SimpleNamespace(seed=seed)
        return SimpleNamespace(asked=asked, system=system, config=config, seconds=seconds)

    wanted = [
        waiting("cifar10-mlp", "A, standard", 9e4),
        waiting("cifar10-mlp", "E, thin in 16 groups", 5e4),
        waiting("mnist-table2", "dropout, ReLU, 3 × 1024", 1e4),
        waiting("mnist-averaging", "averages", 1e5),
        waiting("norms", "shapes", 1.0),
        waiting("spiral", "A, bypassed forward", 2.0),
        waiting("cifar10-mlp", "A, standard", 9e4, seed=1),
    ]
    assert sorted(wanted[3:] + wanted[:3], key=queue.by_worth) == wanted


@pytest.mark.parametrize(("experiment", "part"), queue.WORTH)
def test_what_is_wanted_exists(experiment, part):
    assert any(part in target.label for target in experiments.load(experiment).targets)


def test_runs_of_another_machine_are_taken_in(tmp_path, published):
    elsewhere = tmp_path / "elsewhere"
    with pytest.raises(LabError, match="take must be the folder of a queue with finished runs"):
        queue.take(elsewhere, published)
    found = queue.queue(ORDERS, elsewhere, None)
    queue.run(found, Recorder(), count=1, save_every=30, results=None)
    assert not (published / "mnist-gaussian.json").exists()
    order.record(ORDERS[1], ORDERS[1].jobs()).save(elsewhere / "begun")  # and nothing trained
    *taken, left = queue.take(elsewhere, published)
    assert taken == [
        "linear-theory, smoke: 1 run",
        f"mnist-gaussian, smoke: {len(ORDERS[0].jobs())} runs",
    ]
    assert left.startswith(f"left out: linear-theory, smoke: {elsewhere / 'begun'}: the folder holds no runs")
    assert {system: seeds for system, (seeds, *_) in rows(published).items()} == {
        one.system: [0, 1] for one in found.waiting if one.asked.experiment == "mnist-gaussian"
    }


@pytest.mark.parametrize("option", [("--order", "worth"), ("--free-cores", 1)])
def test_options_of_the_queue_are_refused_without_it(in_tmp, option):
    shown = call("reproduce", "mnist-gaussian", "--budget", "smoke", *option)
    assert shown.exit_code == 2
    assert f"{option[0].strip('-')} must be left out without --queue" in shown.stderr
