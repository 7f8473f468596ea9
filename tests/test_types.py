"""The types as a user's checkers see them: mypy and pyright, on the installed package."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
USER = """
import numpy as np
import torch
from numpy.typing import NDArray

import thinned
import thinned.nn as tnn
from thinned import Key


class Net(torch.nn.Module):
    def first(self) -> int:
        return 1


array: NDArray[np.float32] = thinned.dropout(np.ones(3, np.float32), key=Key(0))
tensor: torch.Tensor = thinned.spatial_dropout(torch.ones(2, 3, 4, 4), 0.5, key=Key(0))
mixed: tuple[torch.Tensor, torch.Tensor] = thinned.cutmix(
    torch.ones(2, 3, 4, 4), torch.ones(2, 3), key=Key(0)
)
thinned.drop_connect(torch.ones(2, 3), torch.ones(4, 3), None, 0.5, key=Key(0)).backward()
tnn.thin(Net()).first()
tnn.max_norm_(Net(), 2.0).first()
with tnn.keyed(Net(), Key(0), step=0) as net:
    net.first()
tnn.Dropout(0.5, rescale="test")
tnn.DropPath(0.1, mode="batch")
"""
WRONG = (  # each line must be refused
    'thinned.dropout(array, key=Key(0), rescale="typo")',
    'tnn.Dropout(0.5, rescale="typo")',
    'thinned.drop_path(array, key=Key(0), mode="typo")',
    "thinned.dropout([1.0, 2.0], key=Key(0))",
    "thinned.dropout(array)",
    "thinned.dropout(array, key=0)",
    "array.detach()",
    "tnn.thin(Net()).second()",
    'tnn.thin(Net(), groups="many")',
)


def refused(tmp_path: Path, command: list[str], line: str) -> set[int]:
    """The lines of the program that a checker refuses."""
    program = tmp_path / "user.py"
    program.write_text(USER + "\n".join(WRONG) + "\n", encoding="utf-8")
    done = subprocess.run([*command, str(program)], capture_output=True, text=True, cwd=tmp_path)
    found = {int(number) for number in re.findall(line, done.stdout, re.MULTILINE)}
    assert found, done.stdout + done.stderr
    return found


def expected() -> set[int]:
    first = USER.count("\n") + 1
    return set(range(first, first + len(WRONG)))


def test_mypy_sees_the_types(tmp_path):
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context"]
    assert refused(tmp_path, command, r"user\.py:(\d+): error") == expected()


def test_pyright_sees_the_types(tmp_path):
    beside = [str(Path(sys.executable).parent / name) for name in ("pyright", "basedpyright")]
    pyright = next(filter(None, map(shutil.which, [*beside, "pyright", "basedpyright"])), None)
    if pyright is None:
        pytest.skip("no pyright on this machine")
    command = [pyright, "--level", "error", "--pythonpath", sys.executable]
    assert refused(tmp_path, command, r"user\.py:(\d+):\d+ - error") == expected()
