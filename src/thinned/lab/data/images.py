"""Images in folders, a folder a class."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from thinned.lab.data.columns import NO_TABLE, How
from thinned.lab.data.frames import MAX_BYTES
from thinned.lab.data.table import Bytes, Table, divide, make, some_of
from thinned.lab.errors import LabError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
LARGEST = 64  # pixels a side; larger images, and images of several sizes, become SIDE × SIDE
SIDE = 32
PARTS = ("train", "test")  # folders of a folder that is divided already


def read_images(path: Path, how: How, test_share: float) -> Table:
    """The images in the folders of a folder, each folder a class; or in those of `train` and `test` in it.

    Grey images where all are grey, else red, green and blue, (3, height, width). Images of several sizes, or
    larger than 64 × 64, are resized to 32 × 32. Without a `test` folder, `test_share` of each class is test
    data.

    Raises:
        LabError: a file cannot be read, or there are too few classes or images.
    """
    if how != How():
        raise LabError(f"{path}: {NO_TABLE}")
    divided = all((path / part).is_dir() for part in PARTS)
    places = [path / part for part in PARTS] if divided else [path]
    files = [_files(place) for place in places]
    every = [file for part in files for file, _ in part]
    size, mode, resized = _form(every)
    arrays = [
        (_pixels([file for file, _ in part], size, mode), np.array([name for _, name in part]))
        for part in files
    ]
    if divided:
        table = make(path, *arrays[0], *arrays[1], "its own test data")
    else:
        table = divide(path, *arrays[0], test_share)
    words = f"{len(every):,} images of {'grey' if mode == 'L' else 'colour'}"
    words += f", resized to {size[0]} × {size[1]} pixels" if resized else f", {size[0]} × {size[1]} pixels"
    return table._replace(note=f"{words}. {table.note}")


def read_new(path: Path, shape: tuple[int, ...]) -> tuple[Bytes, list[str], str]:
    """Images to be predicted, (N, *shape), uint8; their names; and a remark, or "".

    Args:
        path: one image, or a folder: every image below it, whatever its class.
        shape: (height, width), or (3, height, width), of the images of training.
    """
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if _is_image(file))
    if not files:
        raise LabError(f"{path}: no images; give a folder with files such as {', '.join(SUFFIXES[:3])}")
    own, mode, _ = _form(files)
    size, wanted = (shape[-1], shape[-2]), "L" if len(shape) == 2 else "RGB"
    remarks = [f"images were resized to {size[0]} × {size[1]} pixels, as in training"] if own != size else []
    remarks += ["colours became grey, as in training"] if (mode, wanted) == ("RGB", "L") else []
    names = [str(file.relative_to(path)) if path.is_dir() else file.name for file in files]
    return _pixels(files, size, wanted), names, "; ".join(remarks)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def _files(path: Path) -> list[tuple[Path, str]]:
    """Every image below a folder of folders, and the name of its class; hidden files are left out."""
    classes = sorted(place for place in path.iterdir() if place.is_dir() and not place.name.startswith("."))
    found = [(file, place.name) for place in classes for file in sorted(place.rglob("*")) if _is_image(file)]
    if not found:
        raise LabError(
            f"{path}: no images; there must be a folder for each class, with files such as "
            f"{', '.join(SUFFIXES[:3])}"
        )
    empty = [place.name for place in classes if place.name not in {name for _, name in found}]
    if empty:
        raise LabError(f"{path}: folders {some_of(empty)} have no images; remove them, or add images")
    return found


def _form(files: list[Path]) -> tuple[tuple[int, int], str, bool]:
    """(width, height), the mode, and whether images must be resized: from the heads of all files."""
    sizes: Counter[tuple[int, int]] = Counter()
    grey = True
    for file in files:
        with _opened(file) as image:
            turned = image.getexif().get(274, 1) >= 5  # its sides change places
            sizes[image.size[::-1] if turned else image.size] += 1
            grey = grey and image.mode in ("1", "L", "I;16", "I", "F")
    size = next(iter(sizes))
    resized = len(sizes) > 1 or max(size) > LARGEST
    size = (SIDE, SIDE) if resized else size
    mode = "L" if grey else "RGB"
    if (needed := len(files) * size[0] * size[1] * len(mode)) > MAX_BYTES:
        raise LabError(f"images must take at most {MAX_BYTES:,} bytes, got {needed:,}; give a part of them")
    return size, mode, resized


def _pixels(files: list[Path], size: tuple[int, int], mode: str) -> Bytes:
    """(N, height, width), or (N, 3, height, width), uint8."""
    from PIL import ImageOps

    x = np.empty((len(files), size[1], size[0], len(mode)), np.uint8)
    for i, file in enumerate(files):
        with _opened(file) as image:
            whole = ImageOps.exif_transpose(image)
            if whole.mode not in ("1", "L", "RGB"):
                whole = _on_white(whole)
            x[i] = np.reshape(np.asarray(whole.convert(mode).resize(size)), x[i].shape)
    return np.ascontiguousarray(x[..., 0] if mode == "L" else np.moveaxis(x, -1, 1))


def _on_white(image: Any) -> Any:
    """An image without transparency; 16-bit grey becomes 8-bit."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        return Image.fromarray((values / max(1.0, values.max()) * 255).astype(np.uint8))
    whole = image.convert("RGBA")
    ground = Image.new("RGBA", whole.size, "white")
    return Image.alpha_composite(ground, whole).convert("RGB")


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """The image in a file; LabError where it cannot be read to its end."""
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file) as image:
                yield image
        except UnidentifiedImageError:
            fault = "no image that is known here"
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            fault = "too large an image"
        except (OSError, SyntaxError, ValueError) as error:
            fault = f"damaged image ({error})"
        else:
            return
    raise LabError(f"{file}: {fault}; replace or remove it")
