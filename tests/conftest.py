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


@pytest.fixture
def one_process():
    """A gloo group of this process alone, or a skip."""
    distributed = pytest.importorskip("torch").distributed
    if not distributed.is_available() or not distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.fixture
def mesh(one_process):
    """A mesh of one process."""
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh("cpu", (1,))
