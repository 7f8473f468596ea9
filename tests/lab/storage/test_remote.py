"""Results at a URL: whole or not at all, continued bit for bit, and errors in one line without passwords."""

import dataclasses
import errno
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import call
from helpers.recorder import Recorder

pytest.importorskip("fsspec")

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from thinned import Key, _files
from thinned.lab.data.dataset import Dataset
from thinned.lab.data.small import spiral
from thinned.lab.errors import LabError
from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.storage import remote as store
from thinned.lab.storage import run as runs
from thinned.lab.storage.remote import Remote, folder
from thinned.lab.storage.run import Run
from thinned.lab.training.config import Config
from thinned.lab.training.train import train

x, y = spiral(40, key=Key(0))
DATA = Dataset("arms", x[::2], y[::2], x[1::2], y[1::2], ("0", "1", "2"), (2,), "Arms.")
CONFIG = Config(
    data="arms", fingerprint=DATA.fingerprint, method="gaussian", hidden=(16,), epochs=6, batch=16
)


class Shelf(MemoryFileSystem):
    """A system with folders: a file lies in a folder that was made, and a move replaces nothing."""

    protocol = "shelf"
    store: dict = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    moved: list = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("shelf://"))

    def pipe_file(self, path, value, **kwargs):
        assert self._parent(path) in self.pseudo_dirs
        super().pipe_file(path, value, **kwargs)

    def mv(self, one, two, **kwargs):
        assert two not in self.store
        self.moved.append((one, two))
        self.store[two] = self.store.pop(one)


@pytest.fixture(params=["memory://runs/a", "shelf://runs/a"])
def out(request, monkeypatch):
    """An empty folder at a URL: on an object store, and on a system with folders."""
    fsspec.register_implementation("shelf", Shelf, clobber=True)
    monkeypatch.setattr(store, "FOLDERS", (*store.FOLDERS, "shelf"))
    yield folder(request.param)
    for system in (MemoryFileSystem, Shelf):
        system.store.clear()
        system.pseudo_dirs[:] = [""]
    Shelf.moved.clear()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The same run on this machine's disk."""
    return contents(train(CONFIG, DATA, tmp_path_factory.mktemp("whole"), save_every=0).folder)


class Stop(Progress):
    """Cuts a run off in an epoch."""

    def row(self, name, row):
        if row["epoch"] == 4:
            raise KeyboardInterrupt


def contents(place):
    """Everything that must be equal, wherever it lies."""
    arrays = _files.load_npz(place / "last.npz")
    arrays.pop("history/seconds")
    stored = runs.read(place)
    stored.result.pop("about"), stored.result.pop("seconds_per_epoch"), stored.history.pop("seconds")
    return (
        {name: (array.dtype, array.tobytes()) for name, array in arrays.items()},
        (place / "best.npz").read_bytes(),
        (place / "config.json").read_bytes(),
        stored.history,
        stored.result,
        sorted(path.name for path in place.glob("*")),
    )


def test_a_run_at_a_url_is_that_on_disk(out, whole):
    stored = train(CONFIG, DATA, out, save_every=0)
    assert contents(stored.folder) == whole
    assert runs.folders(out) == [stored.folder]
    if out.url.startswith("shelf"):
        assert all(name.endswith(".tmp") for name, _ in Shelf.moved)


def test_a_stopped_run_goes_on(out, whole):
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, DATA, out, Stop(), save_every=0)
    assert not Run(out, CONFIG).finished()
    recorder = Recorder()
    assert contents(train(CONFIG, DATA, out, recorder).folder) == whole
    assert recorder.began == [3]


@pytest.mark.parametrize("size", [0, 100])
def test_a_part_of_a_checkpoint_starts_again(out, whole, size):
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, DATA, out, Stop(), save_every=0)
    path = Run(out, CONFIG).folder / "last.npz"
    path.put(path.read_bytes()[:size])
    recorder = Recorder()
    assert contents(train(CONFIG, DATA, out, recorder).folder) == whole
    assert recorder.began == [0]
    assert str(path.parent) in recorder.notes[0]


def test_a_part_of_a_result_is_no_result(out, whole):
    place = train(CONFIG, DATA, out).folder
    (place / "result.json").put(b'{"status": "done", ')
    assert not Run(out, CONFIG).finished()
    assert contents(train(CONFIG, DATA, out).folder) == whole


def test_a_put_that_breaks_off_is_reported_and_nothing_is_lost(out, whole, monkeypatch):
    real, count = MemoryFileSystem.pipe_file, 0

    def breaks(self, path, value, **kwargs):
        nonlocal count
        count += 1
        if count == 6:
            if path.endswith(".tmp"):
                real(self, path, value[: len(value) // 2], **kwargs)
            raise RuntimeError("the line is dead\nand more")
        real(self, path, value, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", breaks)
    with pytest.raises(LabError, match="RuntimeError: the line is dead; make room or give another --out"):
        train(CONFIG, DATA, out, save_every=0)
    monkeypatch.undo()
    recorder = Recorder()
    monkeypatch.setattr(store, "FOLDERS", (*store.FOLDERS, "shelf"))
    assert contents(train(CONFIG, DATA, out, recorder).folder) == whole
    assert recorder.began[0] > 0
    assert not recorder.notes


def test_files_from_outside_are_measured_before_they_are_read(out, monkeypatch):
    place = train(dataclasses.replace(CONFIG, epochs=1), DATA, out).folder
    monkeypatch.setattr(store, "MAX_TEXT_BYTES", 10)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda *args, **more: pytest.fail("was read"))
    with pytest.raises(LabError, match=r"config.json must hold at most 10 bytes, got [\d,]+ bytes"):
        runs.read(place)
    with pytest.raises(ValueError, match="must hold at most 10 bytes"):
        _files.load_npz(place / "last.npz", max_bytes=10)
    monkeypatch.setattr(MemoryFileSystem, "size", lambda self, path: None)
    with pytest.raises(ValueError, match="got an unknown size"):
        (place / "last.npz").read_bytes()


def test_pickles_are_not_read(out):
    objects = np.array([{}], object)
    place = out / "x.npz"
    with _files.atomic_write(place) as file:
        np.savez(file, a=objects)
    with pytest.raises(ValueError, match="pickle is never loaded"):
        _files.load_npz(place)


def test_places_are_like_paths(out):
    a = out / "b" / "c.txt"
    assert (a.name, a.parent, a.parent.parent) == ("c.txt", out / "b", out)
    assert not a.exists()
    with pytest.raises(FileNotFoundError) as error:
        a.read_text()
    assert error.value.filename == str(a)
    a.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        a.unlink()
    _files.write_text(a, "größer\n")
    _files.write_json(out / "b" / "d.json", {"e": 1})
    assert a.read_text() == "größer\n"
    assert a.exists()
    assert (out / "b").is_dir()
    assert not a.is_dir()
    assert sorted(out.glob("*/*.txt")) == [a]
    assert a.resolve() == a
    odd = Remote(out.url + "[1]") / "f" / "config.json"
    _files.write_text(odd, "{}")
    assert runs.folders(odd.parent.parent) == [odd.parent]


def test_errors_name_the_place_and_no_password(out, monkeypatch):
    def refuses(self, path):
        raise ValueError("no\nway")

    monkeypatch.setattr(MemoryFileSystem, "exists", refuses)
    with pytest.raises(OSError) as error:
        out.exists()
    assert (error.value.errno, error.value.strerror) == (errno.EIO, "ValueError: no")
    assert error.value.filename == str(out)
    secret = Remote("ftp://me:secret@host/runs") / "a"
    assert str(secret) == "ftp://host/runs/a"
    assert "secret" not in repr(secret)
    assert secret.as_posix() == str(secret)


def test_urls_are_checked(tmp_path, monkeypatch):
    assert folder(f"file://{tmp_path}/runs") == tmp_path / "runs"
    assert folder("runs") == Path("runs")
    with pytest.raises(
        LabError, match=r"^folder must be a path, or a URL such as s3://bucket/runs, got nothing://x: "
    ):
        folder("nothing://me:secret@x")
    with pytest.raises(LabError, match="one file system, got the chain"):
        folder("simplecache::memory://x")
    fsspec.register_implementation("lonely", "no_such_package.System", True, "Install no_such_package")
    with pytest.raises(LabError, match=r"lonely://x: Install no_such_package$"):
        folder("lonely://x")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(LabError, match="pip install fsspec"):
        folder("memory://x")


# --- the command ---


def test_one_command_writes_everything_to_a_url(in_tmp, out):
    result = call("reproduce", "linear-theory", "--budget", "smoke", "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"report: {out}/report.html"
    assert json.loads((out / "linear-theory.json").read_text())["rows"][0]["budget"] == "smoke"
    assert f"thinned report {out}" in (out / "report.html").read_text()
    assert call("report", out).stdout == result.stdout
    again = call("reproduce", "linear-theory", "--budget", "smoke", "--out", out, "--dry-run")
    assert "all runs are done" in again.stdout
    assert list(in_tmp.iterdir()) == []


def test_compare_writes_to_a_url(in_tmp, out):
    tiny = ["--hidden", "8", "--epochs", "2", "--seeds", "1", "--batch", "200", "--methods", "none,dropout"]
    result = call("compare", *tiny, "--out", out)
    assert result.exit_code == 0, result.output
    assert len(runs.folders(out)) == 2
    assert list(in_tmp.iterdir()) == []


def test_what_only_this_process_sees_takes_no_workers(in_tmp):
    result = call("reproduce", "mnist-gaussian", "--budget", "smoke", "--out", "memory://a", "--workers", "2")
    assert result.exit_code == 1
    assert "that other processes see, got memory://a" in result.stderr
    MemoryFileSystem.store.clear()


def test_a_place_that_is_not_there_is_one_line(in_tmp):
    result = call("report", "memory://nowhere")
    assert result.exit_code == 1
    assert "thinned: memory://nowhere: no such folder" in result.stderr
