"""Downloads: whole or not at all, continued where cut off."""

import contextlib
import hashlib
import io
import os
import shutil
import sys

import numpy as np
import pytest
from helpers.data import line

from thinned.lab.data import download
from thinned.lab.data.registry import load

CONTENT = np.random.default_rng(7).bytes(300_000)


SUM = hashlib.sha256(CONTENT).hexdigest()


def fetch(server, tmp_path, urls=None, content_sum=SUM):
    return download.fetch(
        "a.bin", urls or [f"{server.url}/a.bin"], content_sum, tmp_path / "store", "do it by hand"
    )


def test_a_download_is_kept(server, tmp_path):
    server.files["/a.bin"] = CONTENT
    for _ in range(2):
        assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == [("/a.bin", None)]
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["a.bin"]


def test_a_cut_connection_is_continued(server, tmp_path):
    server.files["/a.bin"], server.cuts = CONTENT, 2
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    starts = [int(asked.strip("bytes=-")) for _, asked in server.asked[1:]]
    assert server.asked[0] == ("/a.bin", None)
    assert 0 < starts[0] <= 150_000 < starts[1] <= 225_000


def test_a_later_call_continues(server, tmp_path, monkeypatch):
    server.files["/a.bin"], server.cuts = CONTENT, 1
    monkeypatch.setattr(download, "TRIES", 1)
    assert "127.0.0.1 was cut off" in line(fetch, server, tmp_path)
    [part] = (tmp_path / "store").iterdir()
    assert part.name == "a.bin.part"
    size = part.stat().st_size
    assert 0 < size <= 150_000
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == ("/a.bin", f"bytes={size}-")


@pytest.mark.parametrize(
    "part", [CONTENT[:1000], CONTENT, CONTENT + b"more", b"other" * 1000, b"x" * 400_000]
)
@pytest.mark.parametrize("ranges", [True, False])
def test_any_part_that_lies_there(server, tmp_path, part, ranges):
    server.files["/a.bin"], server.ranges = CONTENT, ranges
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.bin.part").write_bytes(part)
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["a.bin"]


def test_a_wrong_checksum_is_removed(server, tmp_path):
    server.files["/a.bin"] = b"something else"
    text = line(fetch, server, tmp_path)
    assert text.startswith(
        "could not download a.bin (127.0.0.1 sent a file with another SHA-256, which was removed)"
    )
    assert list((tmp_path / "store").iterdir()) == []


def test_a_file_without_end_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 100_000)
    server.files["/a.bin"] = CONTENT
    assert "could not download" in line(fetch, server, tmp_path)
    assert list((tmp_path / "store").iterdir()) == []


def test_a_damaged_file_in_the_cache_is_fetched_anew(server, tmp_path):
    server.files["/a.bin"] = CONTENT
    fetch(server, tmp_path).write_bytes(CONTENT[:-1])
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_mirrors_are_tried_in_order(server, tmp_path):
    server.files["/good"], server.files["/bad"] = CONTENT, b"bad"
    urls = ["http://127.0.0.1:9/a.bin", f"{server.url}/missing", f"{server.url}/bad", f"{server.url}/good"]
    assert fetch(server, tmp_path, urls).read_bytes() == CONTENT
    shutil.rmtree(tmp_path / "store")
    text = line(fetch, server, tmp_path, urls[:3])
    assert "127.0.0.1 cannot be reached; 127.0.0.1 answered 404; 127.0.0.1 sent a file with another" in text
    assert text.endswith("; do it by hand")


@pytest.mark.skipif(os.name != "posix", reason="a file in the place of a folder")
def test_a_cache_that_cannot_be_written(server, tmp_path):
    server.files["/a.bin"] = CONTENT
    (tmp_path / "store").write_text("no folder")
    assert "a.bin" in line(fetch, server, tmp_path)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_no_network_is_one_clear_line(name):
    pytest.importorskip("pooch")
    text = line(load, name)
    assert "127.0.0.1 cannot be reached" in text
    assert "--data-dir or $THINNED_DATA" in text


def test_no_pooch(monkeypatch):
    monkeypatch.undo()
    monkeypatch.delenv("THINNED_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert 'pip install "thinned[lab]"' in line(load, "mnist")


def test_a_terminal_shows_a_bar(server, tmp_path, monkeypatch):
    pytest.importorskip("rich")
    server.files["/a.bin"] = CONTENT

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    with contextlib.redirect_stderr(Terminal()):
        assert fetch(server, tmp_path).read_bytes() == CONTENT
