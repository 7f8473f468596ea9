from collections.abc import Sequence

# Arrays are addresses. A layout is the number of elements, one after the other; or the shape, the strides of
# x and those of out, in elements.
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
def normals(out: int, n: int, start: int, k0: int, k1: int, threads: int = 1, level: str = "") -> None: ...
def keep_at_most(bytes: int) -> None: ...
def waiting() -> int: ...
