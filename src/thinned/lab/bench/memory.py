"""Memory: the bytes that a forward pass keeps for the backward pass, and the peak of a call."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import thinned.nn as tnn
from thinned.lab.bench import connect
from thinned.lab.bench.harness.measure import Case
from thinned.lab.errors import LabError

N = 1 << 20
P = 0.5
SMALL = (2, 8, 8)  # batch, in, out of a first call, which loads everything that is loaded once


def cases(threads: int) -> Iterator[Case]:
    """The bytes that modules keep for each element; the peak of DropConnect. Threads change neither."""
    if threads > 1:
        return
    pairs = {
        "Dropout": (tnn.Dropout(P), nn.Dropout(P)),
        "AlphaDropout": (tnn.AlphaDropout(P), nn.AlphaDropout(P)),
        "Dropout2d": (tnn.Dropout2d(P), nn.Dropout2d(P)),
    }
    for name, (ours, theirs) in pairs.items():
        works = {"thinned": slope(ours), "torch": slope(theirs)}
        goals = {"torch": 0.0} if name == "Dropout" else {}
        yield Case("kept for the backward pass", name, "thinned", works, goals, unit="bytes an element")
    width, out = connect.SIZES
    weights = {"the weights": lambda: 4.0 * width * out}
    for passes in ("forward", "forward + backward"):
        works = {label: peak_of(label, passes) for label in ("thinned", "stored mask")}
        group = f"peak extra memory, drop_connect, {width} → {out}, batch {connect.BATCHES[-1]}, p = {P:g}"
        yield Case(group, passes, "thinned", {**works, **weights}, {"the weights": 2.0}, unit="B")


def slope(module: nn.Module) -> Callable[[], float]:
    """Bytes kept for each further element. Bytes that a call keeps once, such as a seed, do not count."""

    def ask() -> float:
        few, many = (
            kept_bytes(module, torch.randn(8, rows, 4, 4, requires_grad=True)) for rows in (N // 128, N // 64)
        )
        return (many - few) / N

    return ask


def kept_bytes(module: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """Bytes of all tensors and arrays that ``module(x)`` keeps for its backward pass.

    Autograd's own hooks show what it saves. Walking the graph shows what a function written in Python keeps
    besides, on its context or in a closure. Shared storage counts once; input and output do not count.
    """
    found: dict[int, int] = {}

    def note(t: Any) -> None:
        if isinstance(t, Tensor):
            storage = t.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        elif isinstance(t, np.ndarray):
            found[t.__array_interface__["data"][0]] = t.nbytes

    def pack(t: Tensor) -> Tensor:
        note(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = module(x)
    for node in nodes(y.grad_fn):
        for value in held(getattr(node, "__dict__", {})):
            note(value)
    for t in (x, y):
        found.pop(t.untyped_storage().data_ptr(), None)
    return sum(found.values())


def nodes(root: Any) -> Iterator[Any]:
    """All nodes of an autograd graph."""
    seen, todo = set(), [root]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        todo += [following for following, _ in node.next_functions]


def held(value: Any, depth: int = 6) -> Iterator[Any]:
    """Tensors and arrays inside containers, objects and closures."""
    if isinstance(value, (Tensor, np.ndarray)):
        yield value
        return
    if depth == 0 or isinstance(value, (type, str, bytes, int, float)):
        return
    inside: list[Any] = []
    if isinstance(value, dict):
        inside += value.values()
    elif isinstance(value, (list, tuple, set, frozenset)):
        inside += value
    else:
        inside += getattr(value, "__dict__", {}).values()
        inside += [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
        inside += getattr(value, "__defaults__", None) or ()
        inside.append(getattr(value, "__self__", None))
    for item in inside:
        yield from held(item, depth - 1)


def peak_of(label: str, passes: str) -> Callable[[], float]:
    """`peak_bytes` in a process of its own, so that memory freed before cannot hide the peak."""

    def ask() -> float:
        call = [sys.executable, "-m", "thinned.lab.bench.memory", label, passes]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"the measured process failed: {done.stderr.strip().splitlines()[-1:]}")
        return float(done.stdout)

    return ask


def peak_bytes(label: str, passes: str) -> int:
    """How far DropConnect's first full call raises this process's peak above what is resident before it."""
    torch.set_num_threads(1)
    product = {"thinned": connect.ours, "stored mask": connect.stored}[label](P)
    backward = passes != "forward"
    batch, width, out = SMALL
    small = torch.randn(batch, width, requires_grad=True), torch.randn(out, width, requires_grad=True)
    connect.work(product, *small, backward)()
    call = connect.work(product, *connect.inputs(connect.BATCHES[-1]), backward)
    before = begin_peak()
    call()
    return peak() - before


def begin_peak() -> int:
    """Reset the peak, where the system can; the bytes from which the next peak is counted."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # count from the old peak: the next one may come out too small, never too large
        return peak()
    return status("VmRSS")


def peak() -> int:
    """The largest number of bytes that were resident at once."""
    try:
        return status("VmHWM")
    except OSError:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def status(name: str) -> int:
    """An entry of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


if __name__ == "__main__":
    print(peak_bytes(*sys.argv[1:]))
