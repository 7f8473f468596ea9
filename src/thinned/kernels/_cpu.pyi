from collections.abc import Sequence

# Arrays are addresses. A layout is the number of elements, one after the other; or the shape, the strides of
# x and those of out, in elements. A negative number of threads means so many of torch's own.
Layout = int | tuple[Sequence[int], Sequence[int], Sequence[int]]

class Block:
    def __init__(self, bytes: int) -> None: ...
    def __buffer__(self, flags: int) -> memoryview: ...

def levels() -> list[str]: ...
def mask(
    out: int, n: int, start: int, k0: int, k1: int, limit: int, threads: int = 1, level: str = ""
) -> None: ...
def drop(
    dtype: int,
    x: int,
    out: int,
    layout: Layout,
    threads: int,
    k0: int,
    k1: int,
    limit: int,
    start: int,
    inner: int,
    scale: float,
    shift: float = 0.0,
    fill: float = 0.0,
    level: str = "",
) -> None: ...
def connect(
    of: int,
    dtype: int,
    a: int,
    b: int,
    out: int,
    shape: tuple[int, int, int],
    start: int,
    k0: int,
    k1: int,
    limit: int,
    scale: float,
    threads: int = 1,
    level: str = "",
) -> None: ...
def drop_block(
    dtype: int,
    x: int,
    out: int,
    n: int,
    channels: int,
    maps: int,
    size: tuple[int, int, int],
    block: tuple[int, int, int],
    start: int,
    k0: int,
    k1: int,
    limit: int,
    threads: int = 1,
    level: str = "",
) -> None: ...
def noise(
    dtype: int,
    x: int,
    out: int,
    layout: Layout,
    threads: int,
    k0: int,
    k1: int,
    start: int,
    deviation: float,
    level: str = "",
) -> None: ...

class Kept:
    """The units that each group of rows keeps; ``order`` (n,) int64 and ``kept`` (groups, panels) bool."""

    def __init__(self, n: int, panel: int, groups: int, width: int, order: int, kept: int) -> None: ...

def product(
    dtype: int,
    rows: tuple[int, int, int],
    x: int,
    weight: int,
    shape: tuple[int, int],
    transposed: bool,
    bias: int,
    of_in: Kept | None,
    of_out: Kept | None,
    scale: float,
    y: int,
    threads: int = 1,
    level: str = "",
) -> None: ...
def correlate(
    dtype: int,
    rows: tuple[int, int, int],
    grad: int,
    x: int,
    shape: tuple[int, int],
    of_in: Kept | None,
    of_out: Kept | None,
    scale: float,
    out_weight: int,
    threads: int = 1,
    level: str = "",
) -> None: ...
def sums(
    dtype: int, rows: tuple[int, int, int], grad: int, n: int, of_out: Kept | None, out: int
) -> None: ...
def normals(out: int, n: int, start: int, k0: int, k1: int, threads: int = 1, level: str = "") -> None: ...
def panel(dtype: int, level: str = "") -> int: ...
def lay_out(dtype: int, x: int, rows: int, units: int, out: int, level: str = "") -> None: ...

# Weight, bias, units in and out, strides by them, where their picks begin, scale, clip: Dense of kernel.hpp.
Dense = tuple[int, int, int, int, int, int, int, int, float, bool]

def networks(
    dtype: int,
    x: int,
    rows: int,
    units: int,
    words: int,
    limit: int,
    start: int,
    layers: Sequence[Dense],
    n: int,
    lists: int,
    lists_each: int,
    out: int,
    threads: int = 1,
    level: str = "",
) -> None: ...
def keep_at_most(bytes: int) -> None: ...
def waiting() -> int: ...

# Rows, columns, elements of a kernel; addresses and numbers of the surviving rows and columns.
Part = tuple[int, int, int, int, int, int, int]

def take(w: int, out: int, part: Part, itemsize: int, threads: int) -> None: ...
def place(compact: int, out: int, part: Part, itemsize: int, threads: int) -> None: ...
def sgd(
    w: int,
    v: int,
    g: int,
    part: Part,
    itemsize: int,
    lr: float,
    momentum: float,
    nesterov: bool,
    l1: float,
    l2: float,
    threads: int,
    level: str = "",
) -> None: ...
def adam(
    w: int,
    m1: int,
    v: int,
    g: int,
    part: Part,
    itemsize: int,
    beta1: float,
    beta2: float,
    rest1: float,
    rest2: float,
    rate: float,
    eps: float,
    keep: float,
    l1: float,
    l2: float,
    threads: int,
    level: str = "",
) -> None: ...
def choose(k0: int, k1: int, n: int, k: int, out: int) -> None: ...
def pick(k0: int, k1: int, n: int, panels: int, limit: int, groups: int, order: int, kept: int) -> None: ...
def clip(w: int, part: Part, itemsize: int, c: float, threads: int) -> None: ...
