"""Parameters on disk: `.npz`, without pickle, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping

from thinned._files import load_npz, save_npz
from thinned.scratch.layer import Array, floats


def save_params(path: str | os.PathLike[str], params: Mapping[str, Array]) -> None:
    """Write the values of ``get_params`` to an `.npz` file, which ``numpy.load`` reads.

    Raises TypeError where a value is no floating-point array, OSError where the file cannot be written;
    an earlier file at ``path`` is then still there.
    """
    save_npz(path, {name: floats(f"params[{name!r}]", array) for name, array in params.items()})


def load_params(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read a file of `save_params`, for ``set_params``; nothing is unpickled.

    Raises FileNotFoundError where there is no file, ValueError where it is truncated or holds something else.
    """
    params = load_npz(path)
    for name, array in params.items():
        if array.dtype.kind != "f":
            raise ValueError(
                f"{os.fspath(path)} must hold parameters, got {array.dtype}, not floats, in {name!r}"
            )
    return params
