from numpy import float32, float64
from numpy.typing import NDArray

def levels() -> list[str]: ...
def mask(
    out: NDArray, start: int, k0: int, k1: int, limit: int, threads: int = 1, level: str = ""
) -> None: ...
def dropout(
    x: NDArray[float32] | NDArray[float64],
    out: NDArray[float32] | NDArray[float64],
    start: int,
    k0: int,
    k1: int,
    limit: int,
    scale: float,
    threads: int = 1,
    level: str = "",
) -> None: ...
