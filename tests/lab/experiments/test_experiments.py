"""Every experiment at its smallest budget, and what all of them share: results and pages."""

import dataclasses
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from helpers.recorder import Recorder

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from thinned import Key, _files, scratch
from thinned.key import words
from thinned.lab import experiments
from thinned.lab.data.dataset import Dataset
from thinned.lab.data.registry import load
from thinned.lab.errors import LabError
from thinned.lab.experiments import (
    calibration,
    cifar10_mlp,
    dropconnect_mnist,
    linear_theory,
    mnist_keep_rate,
)
from thinned.lab.grids.experiment import BUDGETS
from thinned.lab.grids.grid import GridConfig
from thinned.lab.reporting.html import html
from thinned.lab.reproduce import order, results_page
from thinned.lab.sweeping import sweep
from thinned.lab.training.trainer import Trainer

ROOT = Path(__file__).parents[3]
TARGETS = {  # every experiment of the sources
    "mnist-table2", "mnist-architectures", "mnist-keep-rate", "mnist-data-size", "mnist-features",
    "mnist-sparsity", "mnist-averaging", "linear-theory", "mnist-gaussian", "cifar10-mlp", "spiral",
    "ensemble", "calibration", "dropconnect-mnist", "spatial-dropout", "dropblock", "stochastic-depth",
    "cutout-length", "attentive-cutmix", "norms",
}  # fmt: skip
OURS = {"small-tables", "thin-parity"}
BY_TORCH = ("spatial-dropout", "dropblock", "stochastic-depth", "cutout-length", "attentive-cutmix", "norms")
ABSOLUTE = re.compile(r"(?<![\w<.:/])/(?:tmp|home|root|work|usr|var|Users|private)\b")


def photographs(*args, **more):
    """Ten classes of nothing, in the place of CIFAR-10."""
    n, features = 60, 12
    pixels = (words(Key(9), 2 * n * features) % 256 / 255).astype(np.float32).reshape(2 * n, features)
    labels = np.arange(2 * n, dtype=np.int64) % 10
    names = tuple(map(str, range(10)))
    return Dataset("cifar10", pixels[:n], labels[:n], pixels[n:], labels[n:], names, (3, 2, 2), "Nothing.")


def made(name, out, budget="smoke"):
    """One experiment, trained: its order, record and runs."""
    asked = order.order(name, budget, None)
    todo = asked.jobs()
    record = order.record(asked, todo)
    record.save(out)
    return record, sweep.run(todo, out, Recorder())


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Every experiment at smoke: name -> folder, record, runs."""
    patch = pytest.MonkeyPatch()
    patch.setattr(cifar10_mlp, "load", photographs)
    root = tmp_path_factory.mktemp("all")
    found = {}
    for name in experiments.names():
        if name in BY_TORCH:
            pytest.importorskip("torch")
        out = root / f"{name}-smoke"
        found[name] = (out, *made(name, out))
    patch.undo()
    return found


def test_every_experiment_of_the_sources_is_there():
    assert set(experiments.names()) == TARGETS | OURS


def test_unknown_experiments_are_named():
    with pytest.raises(LabError, match="did you mean spiral"):
        experiments.load("spirl")


@pytest.mark.parametrize("name", experiments.names())
def test_experiments_know_their_budgets(name):
    experiment = experiments.load(name)
    assert experiment.name == name
    assert tuple(experiment.budgets) == tuple(experiment.seeds) == BUDGETS


def test_an_experiment_is_found_by_its_file(tmp_path, monkeypatch):
    (tmp_path / "my_own.py").write_text(
        "from thinned.lab.experiments.norms import EXPERIMENT as other\nimport dataclasses\n"
        "EXPERIMENT = dataclasses.replace(other, name='my-own', place=55)\n"
    )
    monkeypatch.setattr(experiments, "__path__", [*experiments.__path__, str(tmp_path)])
    experiments.names.cache_clear()
    try:
        assert experiments.load("my-own").name == "my-own"
        found = experiments.names()
        assert found[found.index("mnist-gaussian") + 1] == "my-own"
    finally:
        monkeypatch.undo()
        experiments.names.cache_clear()


@pytest.mark.parametrize("name", experiments.names())
def test_smoke(everything, name):
    _, record, stored = everything[name]
    experiment = experiments.load(name)
    assert stored
    assert {run.status for run in stored} == {"done"}
    page = experiment.page(record, stored)
    text = html(page)
    ET.fromstring(re.sub(r"<(meta|link|img|br)([^>]*?)/?>", r"<\1\2/>", text.split("\n", 1)[1]))
    assert "<script" not in text
    assert not ABSOLUTE.search(re.sub(r"base64,[\w+/=]*", "", text))
    for reference in page.references:
        assert all(len(row) == len(reference.columns) for row in reference.rows)
    labels = {experiment.label(run.config) for run in stored}
    assert labels <= {target.label for target in experiment.targets}
    assert record.command == f"thinned reproduce {name} --budget smoke"


@pytest.mark.parametrize("name", experiments.names())
def test_a_part_of_the_runs_tells_something(everything, name):
    _, record, stored = everything[name]
    for n in range(1, len(stored)):  # a sweep reports what it has so far
        assert all(map(str.strip, experiments.load(name).page(record, stored[:n]).sentences()))


@pytest.mark.parametrize("name", experiments.names())
def test_smoke_makes_rows(everything, name, tmp_path):
    _, record, stored = everything[name]
    experiment = experiments.load(name)
    rows = results_page.rows(experiment, record, stored)
    path = results_page.save(tmp_path, experiment, rows, experiment.page(record, stored))
    text = path.read_text("utf-8")
    assert not ABSOLUTE.search(text)
    again = json.loads(text)
    assert again["experiment"] == name
    assert [row["system"] for row in again["rows"]] == [
        t.label for t in experiment.targets if t.label in {experiment.label(run.config) for run in stored}
    ]
    for row in again["rows"]:
        assert row["seeds"] == [0]
        assert row["seconds"]["mean"] >= 0
        assert row["device"]
        assert row["engine"].startswith(("numpy, float", "torch on cpu, float32 parameters, precision 32"))
        assert row["test_error"] or row["figures"]


@pytest.mark.parametrize("name", experiments.names())
def test_work_is_known_for_each_budget_without_data(name):
    experiment = experiments.load(name)
    work = [experiment.work(budget) for budget in BUDGETS]
    assert 0 < work[0] <= work[1] <= work[2]
    assert work[2] == experiment.work("paper")


def test_all_parameters_that_no_report_needs_are_gone(everything):
    kept = {out.name for out, _, _ in everything.values() if list(out.glob("*/last.npz"))}
    assert kept == {"mnist-features-smoke", "mnist-sparsity-smoke"}


def test_index_links_every_report(everything):
    root = next(iter(everything.values()))[0].parent
    for name, (out, record, stored) in everything.items():
        _files.write_text(out / "report.html", html(experiments.load(name).page(record, stored)))
    text = results_page.write_index(root).read_text("utf-8")
    assert sorted(re.findall(r'href="([\w-]+)-smoke/report.html"', text)) == sorted(experiments.names())
    assert results_page.write_index(root / "nothing") is None


# --- what single experiments claim ---


def test_the_papers_table_is_whole():
    table = experiments.load("mnist-table2").targets
    printed = [target.theirs for target in table if target.theirs]
    assert printed == [1.60, 1.40, 1.35, 1.25, 1.06, 1.04, 1.01, 0.95, 0.94, 1.18, 0.96, 0.92, 0.79]


def test_the_vote_of_all_sub_networks_is_exact(everything):
    for run in everything["ensemble"][2]:
        assert run.measured["sub-networks"] == {"thin": 252, "dropout": 1024}[run.config["method"]]
        # behind one hidden layer the geometric mean is weight scaling; rounding: some units of probability 1
        assert run.measured["geometric − scaled"] < 100 * np.finfo(float).eps
        assert run.measured["weight scaling"] == pytest.approx(100 * run.result["test_error"])


def test_calibration_counts_every_prediction(everything):
    (run,) = everything["calibration"][2]
    for found in (run.measured[way] for way in calibration.WAYS):
        assert sum(found["count"]) == 359
        assert sum(found["right"]) / 359 == pytest.approx(1 - found["error"])
        assert (sum(found["sure"]) - sum(found["right"])) / 359 == pytest.approx(found["overconfidence"])
    assert run.measured[calibration.SCALED]["error"] == pytest.approx(run.result["test_error"])


def test_a_system_may_have_data_of_its_own():
    grid = calibration.EXPERIMENT.jobs.__self__
    found = {system.label: (settings["data"], n) for system, settings, n in grid.plan("paper")}
    assert found["MNIST, to the end"] == ("mnist", 60_000)
    assert found["CIFAR-10, 5 epochs"] == ("cifar10", 50_000)
    assert {n for _, _, n in grid.plan("quick")} == {10_000}


def test_simulation_agrees_with_the_closed_form(everything):
    (run,) = everything["linear-theory"][2]
    m = run.measured
    # standard errors of normal means: beyond 5 in one of nine with probability 5e-6
    assert max(map(abs, m["standard errors"])) < 5
    assert m["strongest closed penalty at p"] == 0.5
    assert len(m["closed loss"]) == len(linear_theory.RATES)


def test_keep_rates_hold_the_expected_survivors(monkeypatch):
    seen = {}
    for system in mnist_keep_rate.EXPERIMENT.jobs.__self__.plan("paper"):
        seen[system[0].label] = system[1]
    for k in mnist_keep_rate.KEEP:
        same = seen[f"{mnist_keep_rate.SAME}, keep {k:g}"]
        assert same["p"] == pytest.approx(1 - k)
        survivors = [n * k for n in same["hidden"]]
        assert survivors == pytest.approx(mnist_keep_rate.SURVIVORS, abs=k / 2 + 1e-9)  # n is rounded
        assert seen[f"{mnist_keep_rate.FIXED}, keep {k:g}"]["hidden"] == (2048, 2048, 2048)


def test_gaussian_inference_without_dropping_is_the_network():
    data = load("digits")
    config = GridConfig(
        data="digits", fingerprint="", system="", method="drop-connect", p=0.0, hidden=(16, 8), epochs=1
    )
    trainer = dropconnect_mnist.GaussianInference(config, data)
    predicted = trainer.predict(data.x_test[:50], Key(1))
    assert np.array_equal(predicted, trainer.net.predict(data.x_test[:50]).argmax(axis=1))


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        (
            "mnist-table2",
            {
                "ours: thin in 16 groups, ReLU, 3 × 1024": "dropout, ReLU, 3 × 1024",
                "ours: thin in 16 groups + max-norm, ReLU, 3 × 1024": "dropout + max-norm, ReLU, 3 × 1024",
            },
        ),
        ("cifar10-mlp", {"E, thin in 16 groups": "B, dropout"}),
    ],
)
def test_thinned_rows_differ_from_those_with_dropout_by_the_method_alone(name, pairs):
    for budget in BUDGETS:
        plan = {s.label: settings for s, settings, _ in experiments.load(name).jobs.__self__.plan(budget)}
        for thin, dropout in pairs.items():
            assert plan[thin] == {**plan[dropout], "method": "thin"}


def test_published_rows_of_former_systems_still_say_what_they_are(tmp_path):
    table = experiments.load("mnist-table2")
    former = "ours: thin, ReLU, 3 × 1024"
    results_page.save(tmp_path / "results", table, rows_of("paper", **{former: 1.3}))
    results_page.save(
        tmp_path / "results", table, rows_of("paper", **{"dropout, ReLU, 3 × 1024": 1.2}), paper=7.0
    )
    text = results_page.page(tmp_path / "results")
    assert f"| {former} |  | 1.30 | not run |" in text
    assert f"`{former}` is no longer trained: all rows of a batch shared one pick" in text
    assert "has been run for 1 of 16 rows" in text
    assert "`ours: thin + max-norm" not in text


def test_work_counts_multiplications():
    plain = {"hidden": (30, 20), "epochs": 2, "batch": 10}
    steps = 2 * 10 * 1e7
    weights = 5 * 30 + 30 * 20 + 20 * 4
    assert Trainer.work(plain, 100, 5, 4) == 3 * weights * 100 * 2 + steps
    thin = Trainer.work({**plain, "method": "thin", "p": 0.5}, 100, 5, 4)
    assert thin == 3 * (5 * 15 + 15 * 10 + 10 * 4) * 100 * 2 + steps
    connect = Trainer.work({**plain, "method": "drop-connect", "p": 0.5}, 100, 5, 4)
    assert connect == 5 * 3 * weights * 100 * 2 + steps
    params = sum(p.size for _, p, _ in scratch.mlp((5, 30, 20, 4), key=Key(0), drop=None).named_params())
    assert params == weights + 30 + 20 + 4


# --- results ---


def rows_of(budget, **systems):
    stat = {"mean": 1.0, "sd": None}
    common = {"budget": budget, "seeds": [0], "source": None, "figures": {}, "lost": {}, "seconds": stat,
              "device": "a machine", "commit": "abc", "command": "thinned reproduce"}  # fmt: skip
    return [{"system": name, "test_error": {"mean": e, "sd": None}, **common} for name, e in systems.items()]


def test_rows_replace_those_they_repeat(tmp_path):
    experiment = experiments.load("mnist-gaussian")
    results_page.save(tmp_path, experiment, rows_of("quick", standard=2.0, dropout=1.5))
    results_page.save(tmp_path, experiment, rows_of("paper", dropout=1.1))
    path = results_page.save(tmp_path, experiment, rows_of("quick", dropout=1.4, gone=9.0))
    found = [(row["budget"], row["system"], row["test_error"]["mean"]) for row in results_page.read(path)]
    assert found == [("quick", "standard", 2.0), ("quick", "dropout", 1.4), ("paper", "dropout", 1.1)]
    (tmp_path / "mnist-gaussian.json").write_text('{"rows": ')
    with pytest.raises(LabError, match=r"mnist-gaussian\.json: damaged"):
        results_page.read(path)


def test_a_row_that_joins_others_renews_the_finding(tmp_path, everything):
    _, record, stored = everything["mnist-gaussian"]
    gaussian = experiments.load("mnist-gaussian")
    standard, dropout, _ = stored
    for run, error in ((standard, 0.03), (dropout, 0.02)):
        only = [dataclasses.replace(run, result={**run.result, "test_error": error})]
        page = gaussian.page(record, only)
        path = results_page.save(tmp_path, gaussian, results_page.rows(gaussian, record, only), page)
    finding = json.loads(path.read_text("utf-8"))["texts"]["smoke"]["finding"]
    assert finding.startswith("dropout has the lowest test error: 2.00 % against 3.00 % for standard")


def test_texts_of_older_files_are_kept(tmp_path):
    experiment = experiments.load("mnist-gaussian")
    texts = {"paper": {"finding": "as it was", "notes": [], "pictures": [], "tables": []}}
    path = tmp_path / "mnist-gaussian.json"
    path.write_text(json.dumps({"rows": rows_of("paper", standard=1.1), "told": texts}), encoding="utf-8")
    assert "At `paper`: as it was" in results_page.page(tmp_path)
    results_page.save(tmp_path, experiment, rows_of("quick", standard=2.0))
    assert json.loads(path.read_text("utf-8"))["texts"] == texts


@pytest.mark.parametrize(
    ("mean", "sd", "text"),
    [
        (15062.0, None, "15062"),
        (252.0, 0.0, "252 ± 0"),
        (1e-16, 2e-17, "1e-16 ± 2e-17"),
        (2.34567, None, "2.346"),
    ],
)
def test_counts_are_written_whole_and_measures_in_four_digits(mean, sd, text):
    assert results_page._short({"mean": mean, "sd": sd}) == text


def test_a_part_replaces_rows_and_notes_and_leaves_what_was_found_of_the_whole(tmp_path, everything):
    _, record, stored = everything["mnist-keep-rate"]
    keep = experiments.load("mnist-keep-rate")
    pages = []
    for members in (stored[:3], stored, stored[:3]):
        page = dataclasses.replace(keep.page(record, members), notes=[f"of {len(members)}"])
        path = results_page.save(tmp_path, keep, results_page.rows(keep, record, members), page)
        pages.append(json.loads(path.read_text("utf-8"))["texts"]["smoke"])
    part, whole, again = pages
    assert part["finding"] != whole["finding"]
    assert whole["notes"] == [f"of {len(stored)}"]
    assert again == {**whole, "notes": ["of 3"]}
    assert whole["pictures"]
    assert len(results_page.read(path)) == len(stored)


@pytest.mark.parametrize("name", ["thin-parity", "mnist-keep-rate"])
def test_rows_published_in_two_parts_have_the_tables_and_pictures_of_the_whole(tmp_path, everything, name):
    _, record, stored = everything[name]
    experiment, half = experiments.load(name), len(stored) // 2

    def published(folder, *parts):
        for runs in parts:
            rows = results_page.rows(experiment, record, runs)
            path = results_page.save(tmp_path / folder, experiment, rows, experiment.page(record, runs))
        drawn = {file.name: file.read_bytes() for file in (tmp_path / folder).glob("*.svg")}
        return json.loads(path.read_text("utf-8"))["texts"]["smoke"], drawn

    for folder in ("once", "twice"):
        (tmp_path / folder).mkdir()
    texts, drawn = published("once", stored)
    assert drawn
    assert published("twice", stored[:half], stored[half:]) == (texts, drawn)


def test_the_page_command_draws_what_a_file_lacks(tmp_path, everything):
    _, record, stored = everything["thin-parity"]
    parity, folder = experiments.load("thin-parity"), tmp_path / "results"
    folder.mkdir()
    rows = results_page.rows(parity, record, stored)
    path = results_page.save(folder, parity, rows, parity.page(record, stored))
    whole = json.loads(path.read_text("utf-8"))
    less = {"smoke": whole["texts"]["smoke"] | {"pictures": [], "tables": [], "finding": "of before"}}
    path.write_text(json.dumps({**whole, "texts": less}), encoding="utf-8")
    assert "thin-parity-smoke-1.svg" in results_page.write_page(folder).read_text("utf-8")
    assert json.loads(path.read_text("utf-8")) == whole


def test_rows_without_the_figures_of_each_seed_keep_their_tables(tmp_path):
    parity, path = experiments.load("thin-parity"), tmp_path / "results" / "thin-parity.json"
    path.parent.mkdir()
    texts = {"quick": {"finding": "as it was", "notes": [], "pictures": [], "tables": []}}
    (row,) = rows_of("quick", **{parity.targets[0].label: 1.0})
    path.write_text(json.dumps({"rows": [{**row, "seeds": [0, 1]}], "texts": texts}), encoding="utf-8")
    results_page.write_page(path.parent)
    assert json.loads(path.read_text("utf-8"))["texts"] == texts


def test_the_page_covers_every_row_and_says_what_was_not_run(tmp_path):
    gaussian = experiments.load("mnist-gaussian")
    results_page.save(tmp_path / "results", gaussian, rows_of("quick", dropout=1.4), paper=7200.0)
    (tmp_path / "results-notes.md").write_text("# By hand\n")
    text = results_page.write_page(tmp_path / "results").read_text("utf-8")
    for name in experiments.names():
        section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        for target in experiments.load(name).targets:
            if any(t.theirs for t in experiments.load(name).targets):
                assert f"| {target.label} |" in section
    assert "| DBM + dropout finetuning, 500-500-2000 | 0.79 | not run | not run |" in text
    assert "| dropout |  | not run | 1.40 | 1 |" in text
    assert "5 seeds) has not been run; it takes about 2.0 h on the machine named below." in text
    assert text.endswith("# By hand\n")
    results_page.save(tmp_path / "results", gaussian, rows_of("paper", dropout=1.2), paper=7200.0)
    text = results_page.page(tmp_path / "results")
    assert (
        "5 seeds) has been run for 1 of 3 rows; all of it takes about 2.0 h on the machine named below."
        in text
    )


def test_a_run_that_was_cut_off_is_not_published(tmp_path, everything):
    _, record, stored = everything["mnist-gaussian"]
    first, *others = stored
    record = dataclasses.replace(record, budget="quick")
    order.publish(tmp_path / "results", record, [dataclasses.replace(first, result={}), *others])
    rows = results_page.read(tmp_path / "results" / "mnist-gaussian.json")
    assert len(rows) == len(stored) - 1
    assert not any(row["lost"] for row in rows)


def test_what_budgets_have_in_common_is_written_once():
    notes = {"quick": ["same", "small"], "paper": ["same"]}
    assert results_page._differences(notes) == [
        "Where `quick` and `paper` differ from the source:\n\n- same",
        "Where `quick` differs from the source:\n\n- small",
    ]
    assert results_page._differences({"quick": ["a", "b"]}) == [
        "Where `quick` differs from the source:\n\n- a\n- b"
    ]
    assert results_page._differences({}) == []


def test_the_committed_page_is_what_the_command_writes():
    committed = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert committed == results_page.page(ROOT / "docs" / "results"), "run: thinned reproduce --page"
