"""One set-up for all tests."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault(
    "SCIPY_ARRAY_API", "1"
)  # before SciPy is imported: one of scikit-learn's checks wants it

sys.path.insert(0, str(Path(__file__).parent))  # tests import tests/helpers as `helpers`

# Seeds are printed on failure (print_blob), and CI draws the same examples every time.
settings.register_profile(
    "thinned",
    deadline=None,
    max_examples=60,
    print_blob=True,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("thinned")


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    """An empty current folder, and a wide terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("THINNED_DATA", raising=False)
    return tmp_path


@pytest.fixture
def torch():
    """The torch module, or a skip."""
    return pytest.importorskip("torch")
