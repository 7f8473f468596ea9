"""A trained network with the columns or images that it reads: kept in its run's folder, loaded as a pipeline.

`model.npz` holds every array and, as `about`, a text in JSON: no pickle. It is written whole or not at all.
Its checksums and sizes are checked when it is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.pipeline import Pipeline

from thinned import _files, scratch
from thinned.key import Key
from thinned.lab.data.arrays import FittedArrays
from thinned.lab.data.fitted import FittedColumns, loaded, stored
from thinned.lab.errors import LabError
from thinned.lab.storage.remote import Folder, folder
from thinned.lab.storage.run import MODEL
from thinned.lab.training import networks
from thinned.lab.training.config import Config
from thinned.scratch.layer import Array, Layer
from thinned.uncertainty import Prediction, predict

FORMAT = 1
BLOCK = 1_000  # rows in one pass


class Trained(BaseEstimator):
    """A trained network as a fitted estimator of scikit-learn; it is not trained again.

    Args:
        net: the network, with what it drops.
        config: the settings of its run.
        inputs: its inputs.
    """

    def __init__(self, net: scratch.Network, config: Config, inputs: int) -> None:
        self.net, self.config, self.inputs = net, config, inputs

    def fit(self, X: Any, y: Any) -> Any:
        """Not possible: raises TypeError."""
        raise TypeError(f"{type(self).__name__} must be used as it is: thinned compare trains it")

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """None: there is nothing to choose."""
        return {}

    def __sklearn_clone__(self) -> Any:
        return self

    def samples(self, X: ArrayLike, samples: int = 100, quantiles: tuple[float, ...] = ()) -> Prediction:
        """Mean, spread and quantiles of thinned networks (`thinned.uncertainty.predict`).

        ValueError where the network drops nothing.
        """
        return predict(
            self,
            X,
            samples,
            key=Key(self.config.seed).fold_in("samples"),
            quantiles=quantiles,
            progress=False,
        )

    def _outputs(self, X: ArrayLike) -> Array:
        """The network's outputs in evaluation, (N, outputs)."""
        x = self._inputs(X)
        starts = range(0, max(1, len(x)), BLOCK)
        return np.concatenate([self.net.predict(x[i : i + BLOCK]) for i in starts]).astype(np.float64)

    def _inputs(self, X: ArrayLike) -> Array:
        x = np.asarray(X, self.config.dtype)
        if x.ndim != 2 or x.shape[1] != self.inputs:
            raise ValueError(f"X must have shape (N, {self.inputs}), got {x.shape}")
        return x

    def __sklearn_is_fitted__(self) -> bool:
        return True


class TrainedClassifier(ClassifierMixin, Trained):
    """A network that predicts classes.

    Args:
        net, config, inputs: as of `Trained`.
        classes_: the names of the classes, as text.
    """

    def __init__(self, net: scratch.Network, config: Config, inputs: int, classes_: Array) -> None:
        super().__init__(net, config, inputs)
        self.classes_ = classes_

    def predict(self, X: ArrayLike) -> Array:
        """The likeliest class of each row, (N,)."""
        found: Array = self.classes_[self._outputs(X)[:, : len(self.classes_)].argmax(axis=1)]
        return found

    def predict_proba(self, X: ArrayLike, return_std: bool = False, samples: int = 100) -> Any:
        """The probability of each class, (N, classes), in the order of ``classes_``.

        With ``return_std``: mean and standard deviation over ``samples`` thinned networks.
        """
        if return_std:
            found = self.samples(X, samples)
            return found.mean, found.std
        return scratch.Softmax().forward(self._outputs(X)[:, : len(self.classes_)])

    def sampled(self, X: ArrayLike) -> tuple[scratch.Network, Array, str]:
        """For `thinned.uncertainty`: the network, its inputs, and the kind of its outputs."""
        return self.net, self._inputs(X), "logits"


class TrainedRegressor(RegressorMixin, Trained):
    """A network that predicts a number, in the units of the labels.

    Args:
        net, config, inputs: as of `Trained`.
        mean, deviation: of the labels that it was trained on.
    """

    def __init__(
        self, net: scratch.Network, config: Config, inputs: int, mean: float, deviation: float
    ) -> None:
        super().__init__(net, config, inputs)
        self.mean, self.deviation = mean, deviation

    def predict(self, X: ArrayLike, return_std: bool = False, samples: int = 100) -> Any:
        """(N,); with ``return_std``: mean and standard deviation over ``samples`` thinned networks."""
        if return_std:
            found = self.samples(X, samples)
            return found.mean, found.std
        return Units(self.mean, self.deviation).forward(self._outputs(X))

    def sampled(self, X: ArrayLike) -> tuple[scratch.Network, Array, str]:
        """For `thinned.uncertainty`: the network, its inputs, and the kind of its outputs."""
        units = Units(self.mean, self.deviation)
        return scratch.Sequential(*self.net.children.values(), units), self._inputs(X), "numbers"


class Units(Layer):
    """(N, 1) -> (N,), in the units of the labels."""

    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__()
        self.mean, self.deviation = mean, deviation

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """The first output times the deviation, plus the mean."""
        y: Array = x[:, 0] * self.deviation + self.mean
        return y


def save(
    place: Folder,
    config: Config,
    params: Mapping[str, Array],
    inputs: FittedColumns | FittedArrays,
    classes: tuple[str, ...],
    units: tuple[float, float] = (0.0, 1.0),
) -> None:
    """Write the model of a run into its folder, whole or not at all.

    Args:
        place: the folder.
        config, params: of the run.
        inputs: what makes inputs of new data.
        classes: their names; none for numbers.
        units: mean and deviation of numbers that are predicted.
    """
    blocks, arrays = stored(inputs)
    about = {
        "format": FORMAT,
        "label": inputs.label,
        "classes": classes,
        "units": units,
        "config": asdict(config),
        "blocks": blocks,
    }
    text = np.frombuffer(json.dumps(about, allow_nan=False).encode(), np.uint8)
    named = {f"params/{name}": array for name, array in params.items()}
    named |= {f"blocks/{name}": array for name, array in arrays.items()}
    _files.save_npz(place / MODEL, {"about": text, **named})


def load(run: str | os.PathLike[str]) -> Pipeline:
    """The trained network of a run as a fitted scikit-learn pipeline: a table or images in, predictions out.

    Its steps are ``columns`` and ``network``: it takes a pandas frame with the columns of training, by name.
    Of a run of images, ``.npz`` or built-in data, they are ``arrays`` and ``network``: it takes an array
    (N, *shape) as in training, images as uint8.
    ``predict`` gives classes or numbers. ``predict_proba`` gives probabilities, and with ``return_std=True``
    their error bars over thinned networks. Nothing is unpickled.

    Args:
        run: the folder of a run, or URL, as `thinned compare` wrote it; or its `model.npz`.

    Raises:
        LabError: there is no model, or it is damaged.
    """
    path = folder(os.fspath(run))
    path = path if path.name.endswith(".npz") else path / MODEL
    try:
        arrays = _files.load_npz(path)
    except FileNotFoundError:
        raise LabError(
            f"{path}: no such file; give the folder of a run that thinned compare trained to its end (runs "
            "of older versions get one where the command that made them is run again)"
        ) from None
    except ValueError as error:
        raise LabError(f"{error}; train the run again") from error
    try:
        return _pipeline(arrays)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabError(f"{path}: damaged ({error}); train the run again") from error


def _pipeline(arrays: Mapping[str, Array]) -> Pipeline:
    about = json.loads(arrays["about"].tobytes())
    if about["format"] != FORMAT:
        raise ValueError(f"its format must be {FORMAT}, got {about['format']}")
    config = Config(**about["config"] | {"hidden": tuple(about["config"]["hidden"])})
    params = _part(arrays, "params/")
    inputs = loaded(about["blocks"], _part(arrays, "blocks/"), str(about["label"]))
    classes = tuple(map(str, about["classes"]))
    if sum(array.size for array in params.values()) < max(config.hidden):
        raise ValueError("params must fit the hidden layers, got fewer")
    net = networks.dense(config, inputs.width, config.outputs or len(classes) or 1)
    net.set_params(params)
    if not net.finite():
        raise ValueError("params must be finite, got others")
    network: Trained
    if classes:
        network = TrainedClassifier(net, config, inputs.width, np.array(classes))
    else:
        network = TrainedRegressor(net, config, inputs.width, *map(float, about["units"]))
    name = "arrays" if isinstance(inputs, FittedArrays) else "columns"
    return Pipeline([(name, inputs), ("network", network)])


def _part(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
