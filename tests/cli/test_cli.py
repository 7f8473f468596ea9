"""The command: what it prints, where, and how it ends."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import call, outcome, start, wait_for

import thinned
from thinned import methods
from thinned.lab import bench
from thinned.lab.storage.run import read
from thinned.lab.training.defaults import defaults

TINY = ["--hidden", "8", "--epochs", "2", "--seeds", "1", "--batch", "200"]


@pytest.fixture
def mine(in_tmp):
    """A user's own data: two clouds."""
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    x = rng.normal(size=(80, 3)) + 3 * y[:, None]
    np.savez(in_tmp / "mine.npz", x=x, y=y)
    rows = ["a,b,c,kind", *(f"{a},{b},{c},{'no' if k else 'yes'}" for (a, b, c), k in zip(x, y, strict=True))]
    (in_tmp / "mine.csv").write_text("\n".join(rows))
    return in_tmp


def one_line(result, code=1):
    """The error as the user sees it."""
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("thinned: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.output
    return lines[0]


def test_version_and_help():
    assert call("--version").stdout.strip() == thinned.__version__
    for arguments in ([], ["--help"], ["-h"], ["compare", "--help"], ["reproduce", "-h"]):
        result = call(*arguments)
        assert result.exit_code == 0
        assert "Usage" in result.stdout


def test_about_has_what_a_report_of_a_problem_needs():
    found = json.loads(call("about", "--json").stdout)
    assert found["thinned"] == thinned.__version__
    assert {"python", "system", "processor", "kernels", "threads", "numpy"} <= set(found)
    assert call("about").stdout.startswith(f"thinned: {thinned.__version__}\n")


def test_each_help_has_examples():
    from thinned.cli.errors import NAMES

    for name in NAMES:
        text = call(name, "-h").stdout
        if name != "about":
            assert f"thinned {name}" in text.partition("Examples:")[2]
    text = " ".join(call("bench", "-h").stdout.split())
    assert all(name in text for name in bench.NAMES)


def test_the_list_of_experiments_fits_a_screen(in_tmp, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = call("reproduce", "--list").stdout.splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80


def test_smoke_says_that_its_figures_mean_nothing(in_tmp):
    result = call("reproduce", "linear-theory", "--budget", "smoke")
    assert "its figures mean nothing" in " ".join(result.stdout.split())


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_suggests_out(mine):
    Path("closed").mkdir(mode=0o555)
    line = one_line(call("compare", "--data", "mine.npz", *TINY, "--out", "closed"))
    assert "give another folder with --out" in line


def test_thin_is_compared_on_either_engine(in_tmp):
    pytest.importorskip("torch")
    for engine in ("numpy", "torch"):
        result = call("compare", "--methods", "none,thin", "--engine", engine, *TINY)
        assert result.exit_code == 0, result.output
    assert "thin " in result.stdout
    assert "thin" in call("methods").stdout


def test_compare_prints_a_table_and_writes_a_report(mine):
    result = call("compare", "--data", "mine.npz", *TINY)
    assert result.exit_code == 0, result.output
    for word in ("none", "dropout", "gaussian", "errors in %", "gap"):
        assert word in result.stdout
    path = Path(result.stdout.splitlines()[-1].removeprefix("report: "))
    assert path.parent.parent == mine / "thinned-runs" / "compare-mine"
    assert path.parent.name.startswith("none-dropout-gaussian-")
    assert "<html" in path.read_text("utf-8")
    assert len(result.stderr.splitlines()) == 3  # a line a run


def test_the_default_is_digits(in_tmp):
    result = call("compare", *TINY, "--methods", "none")
    assert result.exit_code == 0, result.output
    assert list((in_tmp / "thinned-runs" / "compare-digits").glob("none-*/report.html"))


def test_json_is_all_there_is_on_stdout(mine):
    result = call("compare", "--data", "mine.csv", "--label", "kind", *TINY, "--json", "--out", "o")
    found = json.loads(result.stdout)
    assert [row["label"] for row in found["rows"]] == ["none", "dropout", "gaussian"]
    assert found["rows"][0]["test_error"]["sd"] is None  # one seed
    (path,) = Path("o").glob("*/report.html")
    assert found["report"] == str(path)
    assert found == json.loads((path.parent / "numbers.json").read_text("utf-8"))
    assert {run["result"]["status"] for run in found["runs"]} == {"done"}


def test_what_was_understood_is_shown_and_can_be_corrected(in_tmp):
    words = [f"{i},{i * i % 17},{'uv'[i % 2]},{'ab'[i // 20]}" for i in range(40)]
    (in_tmp / "bare.csv").write_text("\n".join(words))
    options = ["--data", "bare.csv", "--no-header", "--label", "3", *TINY, "--workers", "2"]
    shown = call("compare", *options).stdout
    assert "3: label, 2 classes: 'a', 'b'\n0: row number, left out, --numeric 0 takes it\n1: number" in shown
    corrected = call("compare", *options, "--out", "c", "--numeric", "0", "--categorical", "1", "--drop", "2")
    assert "0: number\n1: category" in corrected.stdout
    assert "2: dropped, left out" in corrected.stdout


def test_the_same_call_trains_nothing_again(mine):
    first = call("compare", "--data", "mine.npz", *TINY)
    second = call("compare", "--data", "mine.npz", *TINY)
    assert second.stdout == first.stdout
    assert second.stderr == ""


def test_a_longer_call_trains_only_what_is_new(mine):
    call("compare", "--data", "mine.npz", *TINY, "--methods", "none")
    result = call("compare", "--data", "mine.npz", *TINY, "--methods", "none,dropout")
    assert [line.split()[1].split("-")[0] for line in result.stderr.splitlines()] == ["dropout"]


def test_report_makes_the_same_report_again(mine):
    made = call("compare", "--data", "mine.npz", *TINY, "--out", "o")
    (path,) = Path("o").glob("*/report.html")
    before = path.read_bytes()
    path.unlink()
    again = call("report", "o")
    assert again.exit_code == 0, again.output
    assert path.read_bytes() == before
    assert again.stdout == made.stdout
    assert call("report", str(path.parent)).stdout == made.stdout
    (path.parent / "page.json").unlink()  # as after a run that was cut off
    assert call("report", "o").exit_code == 0


def test_each_question_has_its_report_and_all_are_listed(mine):
    assert "no reports" in one_line(call("report"))
    first = ["compare", "--data", "mine.npz", *TINY]
    for more in (
        ["--methods", "none"],
        ["--methods", "none,dropout"],
        ["--methods", "none,dropout", "--p", "0.2"],
    ):
        assert call(*first, *more).exit_code == 0
    again = call(*first, "--methods", "none", "--seeds", "2")  # more seeds: the same question
    assert again.exit_code == 0
    for arguments in (["report"], ["report", str(Path("thinned-runs/compare-mine"))]):
        listed = call(*arguments).stdout.splitlines()
        assert len(listed) == 6
        folders = [line for line in listed if not line.startswith(" ")]
        assert all((Path(one) / "report.html").exists() for one in folders)
    assert len(json.loads(call("report", "--json").stdout)) == 3


def test_a_label_of_numbers_is_regression(in_tmp):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 2))
    rows = ["a,b,price", *(f"{a},{b},{1000 + 90 * a - 50 * b:.2f}" for a, b in x)]
    (in_tmp / "houses.csv").write_text("\n".join(rows))
    result = call("compare", "--data", "houses.csv", "--label", "price", *TINY, "--seeds", "2", "--json")
    found = json.loads(result.stdout)
    assert set(found["scores"]) == {"none", "dropout", "gaussian", "always the mean", "linear (ridge)"}
    assert found["scores"]["linear (ridge)"]["R²"][0] > 0.99
    assert found["scores"]["none"]["RMSE"] == pytest.approx(
        [run["result"]["test_error"] for run in found["runs"] if run["config"]["method"] == "none"]
    )
    assert len(found["differences"]) == 2
    assert "RMSE" in found["found"]


def test_runs_of_an_older_version_are_compared_or_it_says_why_not(mine):
    arguments = [
        "compare",
        "--data",
        "mine.npz",
        *TINY,
        "--seeds",
        "2",
        "--methods",
        "none,dropout",
        "--out",
        "o",
    ]
    first = call(*arguments)
    kept = sorted(Path("o").glob("*/predictions.npz"))
    before = [path.read_bytes() for path in kept]
    for path in kept:
        path.unlink()
    again = call(*arguments)
    assert "4 runs of an older version have no predictions; these were computed" in again.stderr
    assert again.stdout == first.stdout
    assert [path.read_bytes() for path in kept] == before
    kept[0].unlink()
    (kept[0].parent / "last.npz").unlink()
    assert "the parameters cannot be used; remove such a folder" in " ".join(call(*arguments).stderr.split())


@pytest.mark.parametrize(
    ("examples", "shape", "given", "expected"),
    [
        (1438, (8, 8), (None, None, None, None), ("sgd", 45, 32, 0.025)),
        (1438, (64,), (None, None, None, None), ("adam", 45, 32, 0.001)),
        (60_000, (28, 28), (None, None, None, None), ("adam", 20, 128, 0.001)),
        (60_000, (28, 28), ("sgd", None, None, None), ("sgd", 20, 128, 0.1)),
        (60_000, (9,), ("sgd", 7, 512, None), ("sgd", 7, 512, 0.1)),
        (1438, (8, 8), ("adam", None, 1438, 0.3), ("adam", 2000, 1438, 0.3)),
    ],
)
def test_defaults_suit_the_data(examples, shape, given, expected):
    assert tuple(defaults(examples, shape, *given).values()) == expected


def test_validation_is_reported(mine):
    arguments = ["compare", "--data", "mine.npz", *TINY, "--seeds", "2", "--validation", "0.25"]
    result = call(*arguments, "--json")
    found = json.loads(result.stdout)
    assert "held out" in found["settings"]["judged on"]
    assert found["runs"][0]["result"]["judged_on"] == "held-out training data"
    shown = call(*arguments, "--p", "0.1,0.5").stdout
    reports = [path.read_text().partition("</style>")[2] for path in Path().rglob("report.html")]
    assert len(reports) == 2
    assert "held-out" in shown.split()
    assert [one["own"] for one in found["differences"]] == [True] * len(found["differences"])
    for text in reports:
        assert "seeds holds out its own" in text
        assert "All methods saw the same" not in text
    for text in (shown, *reports):
        assert not re.search(r"\btest (error|rows|images)|Test data;|Test error", text)


def test_methods_lists_the_table():
    found = json.loads(call("methods", "--json").stdout)
    assert [row["name"] for row in found] == list(methods.METHODS)
    for name in methods.METHODS:
        assert name in call("methods").stdout


def test_reproduce_lists_experiments(in_tmp):
    for arguments in (["reproduce", "--list"], ["reproduce"]):
        shown = call(*arguments).stdout
        assert "spiral" in shown
        assert "cifar10-mlp" in shown
    found = json.loads(call("reproduce", "--list", "--json").stdout)
    assert set(found[0]["budgets"]) == {"smoke", "quick", "paper"}


def test_reproduce_spiral_smoke(in_tmp):
    result = call("reproduce", "spiral", "--budget", "smoke")
    assert result.exit_code == 0, result.output
    assert "source, first" in result.stdout
    assert "its figures mean nothing" in " ".join(result.stdout.split())
    assert "nearest to wiring" not in result.stdout  # no finding
    assert "epoch: 200, acc: 0." in result.stderr
    folder = in_tmp / "thinned-runs" / "spiral-smoke"
    assert (folder / "report.html").exists()
    assert call("report", folder).stdout == result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "--methods", "none,dropuot"], ["dropuot", "did you mean dropout"]),
        (["compare", "--methods", ","], ["methods"]),
        (["compare", "--p", "1.5"], ["p must be in [0, 1]", "1.5"]),
        (["compare", "--p", "50"], ["0.5"]),
        (["compare", "--input-p", "-0.1"], ["input_p"]),
        (["compare", "--hidden", "256,0"], ["hidden[1]", "0"]),
        (["compare", "--hidden", "big"], ["hidden", "'big'"]),
        (["compare", "--hidden", ""], ["hidden"]),
        (["compare", "--epochs", "0"], ["epochs"]),
        (["compare", "--lr", "0"], ["lr"]),
        (["compare", "--max-norm", "0"], ["max_norm"]),
        (["compare", "--schedule", "cosine"], ["schedule", "linear"]),
        (["compare", "--validation", "2"], ["validation"]),
        (["compare", "--data", "digit"], ["digit", "digits"]),
        (["compare", "--data", "nowhere.npz"], ["nowhere.npz"]),
        (["compare", "--data", "digits", "--label", "kind"], ["label"]),
        (["compare", "--data", "mine.csv", "--label", "sort"], ["sort", "kind"]),
        (["compare", "--data", "mine.npz", "--out", "mine.npz"], ["mine.npz"]),
        (["reproduce", "spirl"], ["spirl", "spiral"]),
        (["reproduce", "spiral", "--budget", "huge"], ["budget", "smoke"]),
        (["reproduce", "spiral", "--queue", "--budget", "huge"], ["budget", "smoke"]),
        (["report", "nowhere"], ["nowhere"]),
        (["report", "."], ["holds no runs"]),
    ],
)
def test_bad_input_is_one_clear_line(mine, arguments, words):
    """2 for a wrong call, 1 for files that are not as they must be."""
    files = ("nowhere.npz", "nowhere", ".")
    line = one_line(call(*arguments), 1 if arguments[-1] in files or "--out" in arguments else 2)
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "--seeds", "0"],
        ["compare", "--epochs", "many"],
        ["compare", "--nope"],
        ["nope"],
    ],
)
def test_a_wrong_call_ends_with_2(in_tmp, arguments):
    one_line(call(*arguments), code=2)
    assert list(in_tmp.iterdir()) == []


def test_missing_values_in_the_data_are_reported(in_tmp):
    np.savez("bad.npz", x=np.full((20, 2), np.nan), y=np.arange(20) % 2)
    assert "bad.npz" in one_line(call("compare", "--data", "bad.npz"))


def test_a_diverging_method_is_reported_and_the_others_finish(mine):
    wild = ["--lr", "1e30", "--schedule", "constant", "--methods", "none,dropout"]
    result = call("compare", "--data", "mine.npz", *TINY, *wild)
    line = one_line(result)
    assert "2 of 2 runs diverged (none seed 0, dropout seed 0; the first in epoch" in line
    assert "--lr" in line
    assert "report.html" in result.stdout
    assert "diverged" in result.stdout


def test_a_run_that_fails_is_marked_and_the_others_finish(mine, monkeypatch):
    from thinned.lab.training.trainer import Trainer

    build = Trainer.build
    with monkeypatch.context() as patch:
        patch.setattr(
            Trainer, "build", lambda self: 1 / 0 if self.config.method == "dropout" else build(self)
        )
        result = call("compare", "--data", "mine.npz", *TINY)
    line = one_line(result)
    assert "1 of 3 runs failed; the first: ZeroDivisionError: division by zero" in line
    assert result.stderr.count("test error") == 2
    assert "report.html" in result.stdout
    again = call("compare", "--data", "mine.npz", *TINY)
    assert again.exit_code == 0, again.output
    assert [line.split()[1].split("-")[0] for line in again.stderr.splitlines()] == ["dropout"]


def test_a_full_disk_is_reported(mine, monkeypatch):
    from thinned import _files

    def full(path, arrays):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(_files, "save_npz", full)
    line = one_line(call("compare", "--data", "mine.npz", *TINY))
    assert "No space left" in line
    assert "thinned-runs" in line


def test_a_report_that_cannot_be_written_is_reported(mine, monkeypatch):
    from thinned.lab.reporting import html

    def full(out, page):
        raise OSError(28, os.strerror(28), str(out / "report.html"))

    monkeypatch.setattr(html, "render", full)
    assert "thinned report" in one_line(call("compare", "--data", "mine.npz", *TINY))


# --- real processes ---


def test_the_module_is_the_command(tmp_path):
    with start(tmp_path, "--version") as process:
        out, _ = process.communicate(timeout=60)
    assert out.strip() == thinned.__version__


def test_workers_train_what_one_process_trains(mine):
    more = ["--data", "mine.npz", *TINY, "--seeds", "2", "--methods", "none,dropout"]
    assert call("compare", *more, "--seeds", "1", "--out", "two").exit_code == 0  # begun by one process
    assert call("compare", *more, "--out", "one").exit_code == 0
    with start(mine, "compare", *more, "--out", "two", "--workers", "2") as process:
        _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert len(err.splitlines()) == 2
    one, two = (sorted(mine.glob(f"{out}/*/config.json")) for out in ("one", "two"))
    assert outcome([read(path.parent) for path in one]) == outcome([read(path.parent) for path in two])
    for a, b in zip(one, two, strict=True):
        assert (a.parent / "best.npz").read_bytes() == (b.parent / "best.npz").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="another way to interrupt")
def test_ctrl_c_says_that_the_same_command_continues(mine):
    arguments = ["compare", "--data", "mine.npz", "--hidden", "8", "--seeds", "1", "--methods", "none"]
    arguments += ["--epochs", "1000000", "--save-every", "0", "--out", "o"]
    with start(mine, *arguments) as process:
        wait_for(process, lambda: list(mine.glob("o/*/last.npz")))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines() == ["thinned: stopped; the same command continues where it left off (in o)"]
    assert out == ""
    assert not list(mine.glob("o/*/*.tmp"))
    shown = call("report", "o")
    assert shown.exit_code == 0, shown.output
    assert "stopped" in shown.stdout
    assert "--epochs 1000000" in next(mine.glob("o/*/report.html")).read_text("utf-8")


def test_importing_the_command_is_light():
    heavy = {"torch", "sklearn", "matplotlib", "scipy", "jinja2", "pooch", "thinned.lab"}
    code = f"import sys, thinned.cli; print(*{heavy} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == ""
