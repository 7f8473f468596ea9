"""torchvision imports without its compiled half."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def torchvision_without_its_compiled_half():
    pytest.importorskip("torch")
    from thinned.lab.bench.harness import peers

    peers.prepare()
