"""Other libraries as contestants, where they are installed."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

_ROIS = ("roi_align", "qroi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")
_NAMES = ("nms", "qnms", "deform_conv2d", *_ROIS)


def load(name: str) -> ModuleType | None:
    """The module, or None where it is not installed."""
    prepare()
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def prepare() -> None:
    """Make torchvision importable without its compiled half, by declaring the names of its operators."""
    if "torchvision" in sys.modules:
        return
    try:
        importlib.import_module("torchvision")
    except ImportError:
        return
    except RuntimeError:  # "operator torchvision::nms does not exist"
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in (*_NAMES, *(f"_{name}_backward" for name in _NAMES)):
            torch.library.define(f"torchvision::{name}", "(Tensor x) -> Tensor")
