"""Files appear whole or not at all; `.npz` is read without pickle and without trust."""

import errno
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from thinned._files import atomic_write, load_npz, save_npz, write_json, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_atomic_write_replaces_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "a.bin"
    with atomic_write(path) as file:
        file.write(b"one")
        assert not path.exists()
    with atomic_write(path) as file:
        file.write(b"two")
        assert path.read_bytes() == b"one"
    assert path.read_bytes() == b"two"
    assert names(path.parent) == ["a.bin"]


def test_text_is_utf8_with_plain_line_ends(tmp_path):
    write_text(tmp_path / "a.txt", "größer\nals\n")
    assert (tmp_path / "a.txt").read_bytes() == "größer\nals\n".encode()


def test_mode_is_checked(tmp_path):
    with pytest.raises(ValueError, match="mode must be"), atomic_write(tmp_path / "a", "a"):
        pass


def test_very_long_names_fit(tmp_path):
    write_text(tmp_path / ("n" * 250), "x")
    assert names(tmp_path) == ["n" * 250]


@pytest.mark.skipif(os.name != "posix", reason="links and permission bits are POSIX")
def test_links_are_followed_and_permissions_are_the_users(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "real").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    "error", [RuntimeError("broken"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")]
)
def test_an_exception_leaves_the_old_file_and_no_litter(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail():
        with atomic_write(path, "w") as file:
            file.write("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_disk_full_at_sync_leaves_the_old_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save_npz(tmp_path / "a.npz", {"x": np.arange(3)})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_npz(tmp_path / "a.npz", {"x": np.arange(9)})
    assert load_npz(tmp_path / "a.npz")["x"].tolist() == [0, 1, 2]
    assert names(tmp_path) == ["a.npz"]


FULL_DISK = """
import resource, sys
import numpy as np
from thinned._files import save_npz, write_text

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for write in (
    lambda: save_npz(sys.argv[1], {"x": np.zeros(5), "big": np.zeros(1_000_000)}),
    lambda: save_npz(sys.argv[1], {str(i): np.zeros(500) for i in range(100)}),
    lambda: write_text(sys.argv[1], "long" * 100_000),
):
    try:
        write()
    except OSError as error:
        print(error.errno)
"""


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_full_disk_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.npz"
    save_npz(path, {"x": np.arange(3)})
    out = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL_DISK, path], check=True, capture_output=True, text=True
    )
    assert out.stdout.split() == [str(errno.EFBIG)] * 3
    assert out.stderr == ""
    assert load_npz(path)["x"].tolist() == [0, 1, 2]
    assert names(tmp_path) == ["a.npz"]


KILLED = """
import sys, time
from thinned._files import atomic_write

with atomic_write(sys.argv[1], "w") as file:
    file.write("half of it")
    file.flush()
    print("in the middle", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
def test_kill_9_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "in the middle\n"
        child.send_signal(signal.SIGKILL)
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"


def test_json_is_plain_and_strict(tmp_path):
    obj = {
        "float32": np.float32(0.5),
        "array": np.arange(3),
        "path": Path("a") / "b",
        "nan": [float("nan"), np.inf, -np.inf, np.float32("nan")],
        "tuple": (1, "größer", None, True),
        7: np.int64(8),
    }
    write_json(tmp_path / "a.json", obj)
    back = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert back == {
        "float32": 0.5,
        "array": [0, 1, 2],
        "path": str(Path("a") / "b"),
        "nan": [None] * 4,
        "tuple": [1, "größer", None, True],
        "7": 8,
    }
    with pytest.raises(TypeError):
        write_json(tmp_path / "b.json", object())
    assert names(tmp_path) == ["a.json"]


ARRAYS = {
    "file": np.arange(12, dtype=np.float32).reshape(3, 4),
    "allow_pickle": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "0.weight": np.array(3, dtype=np.uint64),
    "empty": np.zeros((0, 5), np.int8),
    "words": np.array(["a", "größer"]),
    "strided": np.arange(20)[::3],
    "big endian": np.arange(3, dtype=">f8"),
}


def test_npz_comes_back(tmp_path):
    path = tmp_path / "a.npz"
    save_npz(path, ARRAYS)
    for back in (load_npz(path), dict(np.load(path, allow_pickle=False))):
        assert list(back) == list(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(back[name], array)
            assert back[name].dtype == array.dtype
    save_npz(tmp_path / "b.npz", ARRAYS)
    assert path.read_bytes() == (tmp_path / "b.npz").read_bytes()
    np.savez_compressed(tmp_path / "c.npz", x=ARRAYS["file"])
    np.testing.assert_array_equal(load_npz(tmp_path / "c.npz")["x"], ARRAYS["file"])


def test_save_npz_refuses_objects_and_bad_names(tmp_path):
    with pytest.raises(ValueError, match="array 'x' must hold numbers or strings, got Python objects"):
        save_npz(tmp_path / "a.npz", {"x": np.array([{}, None])})
    for name in ("", 3):
        with pytest.raises(ValueError, match="names of arrays must be non-empty strings"):
            save_npz(tmp_path / "a.npz", {name: np.zeros(1)})
    assert names(tmp_path) == []


class Trap:
    """Unpickling it would be noticed."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)


def test_load_npz_never_unpickles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", x=np.array([Trap()], dtype=object))
    with pytest.raises(ValueError, match=r"a\.npz: .*pickle is never loaded"):
        load_npz("a.npz")
    np.save("b.npz.npy", np.array([Trap()], dtype=object))
    with pytest.raises(ValueError, match=r"must be an \.npz archive"):
        load_npz("b.npz.npy")
    assert names(tmp_path) == ["a.npz", "b.npz.npy"]


def test_load_npz_of_what_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_npz(tmp_path / "missing.npz")
    for content in (b"", b"x,y\n1,2\n", np.arange(99).tobytes()):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.npz: the file must be an \.npz archive"):
            load_npz(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match="'readme\\.txt' must be an array"):
        load_npz(tmp_path / "b.npz")


def test_every_truncation_is_a_clear_error(tmp_path):
    save_npz(tmp_path / "a.npz", {name: ARRAYS[name] for name in ("file", "words")})
    whole = (tmp_path / "a.npz").read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "b.npz").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"b\.npz: "):
            load_npz(tmp_path / "b.npz")


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_byte_never_gives_other_numbers(tmp_path, seed):
    rng = np.random.default_rng(seed)
    arrays = {"x": ARRAYS["file"], "words": ARRAYS["words"]}
    np.savez_compressed(tmp_path / "a.npz", x=arrays["x"], words=arrays["words"])
    whole = np.frombuffer((tmp_path / "a.npz").read_bytes(), np.uint8)
    for _ in range(150):
        damaged = whole.copy()
        damaged[rng.integers(len(whole))] ^= rng.integers(1, 256)
        (tmp_path / "b.npz").write_bytes(damaged.tobytes())
        try:
            back = load_npz(tmp_path / "b.npz")
        except ValueError:
            continue
        known = [array.tolist() for array in arrays.values()]
        # Names and the list of members lie outside of the checksums, numbers do not.
        assert all(array.tolist() in known for array in back.values())


def npy_header(shape):
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize("shape", [(1 << 40,), (4,), (2,), (-1, -3), (1 << 62, 1 << 62)])
def test_sizes_are_checked_before_memory_is_taken(tmp_path, shape):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", npy_header(shape) + bytes(24))
    with pytest.raises(ValueError, match=r"a\.npz: "):
        load_npz(tmp_path / "a.npz")


def test_a_zip_bomb_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(100_000))
    with pytest.raises(ValueError, match=r"unpacked size must be at most 10,000 bytes, got 800,\d+"):
        load_npz(tmp_path / "a.npz", max_bytes=10_000)


def test_an_interrupt_while_an_archive_is_written_stays_an_interrupt(tmp_path, monkeypatch):
    """Also where a member is open, so that the archive cannot be closed."""

    def interrupted(self, *args, **more):
        opened.append(really(self, *args, **more))
        raise KeyboardInterrupt

    opened, really = [], zipfile.ZipFile.open
    save_npz(tmp_path / "a.npz", {"x": np.arange(3)})
    monkeypatch.setattr(zipfile.ZipFile, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_npz(tmp_path / "a.npz", {"x": np.arange(9)})
    monkeypatch.undo()
    assert load_npz(tmp_path / "a.npz")["x"].tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
