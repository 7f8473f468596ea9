"""The scaling of arrays and images after it was fitted: to be stored, and used again."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from thinned.lab.errors import LabError


class FittedArrays(TransformerMixin, BaseEstimator):
    """A fitted transformer: (N, *shape) or (N, features) -> (N, features), float32: (x − mean) · factor.

    Args:
        shape: of one example.
        mean, factor: (1,) or (features,), float64.
        images: whether examples are bytes (uint8).
    """

    label = ""  # no column

    def __init__(
        self, shape: tuple[int, ...], mean: NDArray[Any], factor: NDArray[Any], images: bool = False
    ) -> None:
        for name, array in (("mean", mean), ("factor", factor)):
            if array.shape not in ((1,), (int(np.prod(shape)),)) or not np.isfinite(array).all():
                raise ValueError(f"{name} must be one number, or one a feature, got the shape {array.shape}")
        self.shape, self.mean, self.factor, self.images = shape, mean, factor, images

    @classmethod
    def scaled(cls, shape: tuple[int, ...], factor: float, images: bool = False) -> FittedArrays:
        """Examples times a factor: images of bytes times 1/255."""
        return cls(shape, np.zeros(1), np.full(1, factor), images)

    def fit(self, X: Any, y: Any = None) -> Any:
        """Not possible: raises TypeError."""
        raise TypeError("FittedArrays must be used as it is: thinned compare fits it")

    def transform(self, X: Any) -> NDArray[np.float32]:
        """(N, features), float32. LabError if the examples are not like those of training."""
        x = np.asarray(X)
        if x.ndim < 2 or x.shape[1:] not in (self.shape, (self.width,)):
            wanted = ", ".join(map(str, ("N", *self.shape)))
            raise LabError(f"examples must have the shape ({wanted}), as in training, got {x.shape}")
        if x.dtype.kind not in "buif" or self.images != (x.dtype == np.uint8):
            rule = "uint8" if self.images else "numbers other than uint8"
            raise LabError(f"examples must be {rule}, as in training, got {x.dtype}")
        scaled = (x.reshape(len(x), -1) - self.mean) * self.factor
        return np.asarray(scaled, np.float32)

    @property
    def width(self) -> int:
        """The number of outputs."""
        return int(np.prod(self.shape))

    def __sklearn_clone__(self) -> Any:
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True
