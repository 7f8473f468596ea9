"""Folders of images: what is read, in which form, and what is refused."""

import numpy as np
import pytest

Image = pytest.importorskip("PIL.Image")

from thinned.lab.data.registry import load  # noqa: E402
from thinned.lab.errors import LabError  # noqa: E402

RNG = np.random.default_rng(0)


def picture(shape=(6, 5), value=None):
    return RNG.integers(0, 256, shape).astype(np.uint8) if value is None else np.full(shape, value, np.uint8)


def write(folder, images, suffix=".png"):
    """Folders of images: {class: arrays}."""
    for name, arrays in images.items():
        (folder / name).mkdir(parents=True)
        for i, array in enumerate(arrays):
            Image.fromarray(array).save(folder / name / f"{i}{suffix}")


def test_grey_images_of_one_size(in_tmp):
    images = {"cat": [picture() for _ in range(10)], "a dog": [picture() for _ in range(5)]}
    write(in_tmp / "pets", images)
    (in_tmp / "pets" / "notes.txt").write_text("no image")
    (in_tmp / "pets" / "cat" / ".hidden.png").write_text("no image")
    data = load("pets")
    assert data.classes == ("a dog", "cat")
    assert data.shape == (6, 5)
    assert np.bincount(data.y_train).tolist() == [4, 8]
    assert np.bincount(data.y_test).tolist() == [1, 2]
    expected = {(array / np.float32(255)).tobytes() for array in images["cat"]}
    assert {x.tobytes() for x in data.x_train[data.y_train == 1]} <= expected
    assert data.note.startswith("15 images of grey, 5 × 6 pixels. Inputs: bytes / 255")


def test_colours_and_sizes_of_all_kinds(in_tmp):
    clear = np.zeros((8, 8, 4), np.uint8)  # black, and nothing of it to be seen
    white = [clear, picture((8, 8, 3), 255), picture((9, 8), 255)]
    write(in_tmp / "x", {"a": white, "b": [picture((70, 90, 3), 7)] * 3})
    data = load("x")
    assert data.shape == (3, 32, 32)
    values = {
        (int(y), round(255 * float(v))) for x, y in zip(data.x_train, data.y_train, strict=True) for v in x
    }
    assert values == {(0, 255), (1, 7)}
    assert "6 images of colour, resized to 32 × 32 pixels" in data.note


def test_deep_grey(in_tmp):
    write(in_tmp / "x", {"a": [np.full((4, 4), 600, np.uint16)] * 2, "b": [np.zeros((4, 4), np.uint16)] * 2})
    data = load("x")
    assert data.x_train[data.y_train == 0].max() == 1.0


def test_turned_images(in_tmp):
    (in_tmp / "x" / "a").mkdir(parents=True)
    (in_tmp / "x" / "b").mkdir()
    tall = picture((6, 4), 0)
    tall[0] = 255
    turned = Image.Exif()
    turned[274] = 6  # a quarter to the right makes it upright
    for i in range(2):
        Image.fromarray(tall).save(in_tmp / "x" / "a" / f"{i}.png")
        Image.fromarray(np.rot90(tall)).save(in_tmp / "x" / "b" / f"{i}.png", exif=turned)
    data = load("x")
    assert data.shape == (6, 4)
    np.testing.assert_array_equal(data.x_train[0], data.x_train[1])


def test_a_folder_that_is_divided(in_tmp):
    write(in_tmp / "x" / "train", {"a": [picture()] * 3, "b": [picture()] * 2})
    write(in_tmp / "x" / "test", {"a": [picture()], "b": [picture()]})
    data = load("x")
    assert (len(data.x_train), len(data.x_test)) == (5, 2)
    assert "its own test data" in data.note


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda x: (x / "a" / "9.png").write_text("no image"),
            r"9\.png: no image that is known here; replace or remove it",
        ),
        (lambda x: cut(x / "a" / "0.png"), r"0\.png: damaged image \(.*\); replace or remove it"),
        (lambda x: (x / "empty").mkdir(), "x: folders 'empty' have no images; remove them, or add images"),
    ],
)
def test_bad_folders(in_tmp, make, message):
    write(in_tmp / "x", {"a": [picture((40, 40))] * 3, "b": [picture((40, 40))] * 3})
    make(in_tmp / "x")
    with pytest.raises(LabError, match=message) as caught:
        load("x")
    assert "\n" not in str(caught.value)


def cut(path):
    path.write_bytes(path.read_bytes()[:200])


def test_no_images_and_options_of_tables(in_tmp):
    (in_tmp / "x").mkdir()
    with pytest.raises(
        LabError, match=r"x: no images; there must be a folder for each class, with files such"
    ):
        load("x")
    write(in_tmp / "x", {"a": [picture()] * 2})
    with pytest.raises(LabError, match="two or more classes, got 'a' alone"):
        load("x")
    with pytest.raises(LabError, match="--label, --no-header and options for columns are for tables"):
        load("x", label="a")
