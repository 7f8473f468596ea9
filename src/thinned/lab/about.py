"""What a report of a problem needs to know: versions, processor, kernels, devices."""

from __future__ import annotations

import importlib.metadata
import platform
import sys

import thinned
from thinned import kernels
from thinned.lab.storage.provenance import processor

PACKAGES = (
    "numpy",
    "torch",
    "triton",
    "scikit-learn",
    "lightning-fabric",
    "pytorch-lightning",
    "transformers",
    "timm",
    "matplotlib",
    "pandas",
    "ray",
)


def about() -> dict[str, str]:
    """What `thinned about` prints, by name. Torch is imported only if it is installed."""
    found = {
        "thinned": thinned.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.platform(),
        "processor": f"{processor()}, {kernels.cores()} cores",
        "kernels": _kernels(),
        "threads": str(kernels.threads()),
    }
    found |= {name: version for name in PACKAGES if (version := _version(name))}
    return found | ({"devices": _devices()} if "torch" in found else {})


def _kernels() -> str:
    """The levels of the instruction set that this processor has; the last one is used."""
    cpu = kernels.extension()
    return f"{cpu.levels()[-1]} (of {', '.join(cpu.levels())})" if cpu else "none: NumPy alone"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> str:
    """The devices that torch has, and whether the Triton kernels run on them."""
    import torch

    found = ["cpu"]
    if torch.cuda.is_available():
        found += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        found += ["Triton kernels" if kernels.triton() else "no Triton kernels: masks are drawn on the CPU"]
    if sys.platform == "darwin" and torch.backends.mps.is_available():
        found += ["mps"]
    return ", ".join(found)
