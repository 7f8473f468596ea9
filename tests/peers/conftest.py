"""torchvision imports without its compiled half: the names of its operators are all that it asks for."""

import sys

import pytest

_ROIS = ("roi_align", "qroi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")
_NAMES = ("nms", "qnms", "deform_conv2d", *_ROIS)


@pytest.fixture(scope="session", autouse=True)
def torchvision_without_its_compiled_half():
    torch = pytest.importorskip("torch")
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError:  # "operator torchvision::nms does not exist"
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in (*_NAMES, *(f"_{name}_backward" for name in _NAMES)):
            torch.library.define(f"torchvision::{name}", "(Tensor x) -> Tensor")
