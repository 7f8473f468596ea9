"""The classifier and the regressor: their targets, outputs and scores."""

from __future__ import annotations

import numbers
from typing import Any, Literal, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from thinned import _checks, scratch
from thinned.estimators.base import DropoutMLP
from thinned.estimators.data import Array, Exp, dense, sample_weights

LINKS = {"squared_error": "identity", "poisson": "exp"}  # loss -> what makes predictions of the outputs
Classifier = TypeVar("Classifier", bound="DropoutMLPClassifier")
Regressor = TypeVar("Regressor", bound="DropoutMLPRegressor")


class DropoutMLPClassifier(ClassifierMixin, DropoutMLP):
    """A network that classifies, with dropout: scikit-learn's ``MLPClassifier`` and five parameters.

    ``dropout``: the share of hidden units that is dropped in a training step; ``input_dropout``: that of the
    features. ``max_norm``: c such that every hidden unit's incoming weights keep ‖w‖₂ ≤ c; 2 to 4 is usual.
    ``thin``: the rows of a batch form 8 groups, each of which keeps its own hidden units. In large
    networks no others are computed (`thinned.scratch.Thin`), and training takes less time than without
    dropout. False: other units for each row, at the full price. Copies of a row in a batch count as one row
    of their weight.
    ``class_weight``: a dict of class -> weight, or "balanced" for N/(classes · rows of the class). It
    multiplies ``sample_weight``, also where ``early_stopping`` scores rows. For labels: a list of dicts.

    All other parameters are scikit-learn's, except: ``solver`` is "adam" or "sgd". ``learning_rate_init``
    "auto" is 1/(units of the widest hidden layer), at most 0.01. Where units are dropped, ``tol`` applies to
    the loss of the whole network, on 256 of the training samples at most, because masks make the loss of an
    epoch, in ``loss_curve_``, noisy. ``early_stopping`` holds out samples of
    every class in proportion. ``alpha`` counts once for a batch, alpha/2·‖W‖²/(its samples), as there.
    Sizes, activation, dropout and ``max_norm`` are those of the first call where ``partial_fit`` or
    ``warm_start`` continue.

    X: (N, features), dense or sparse; float32 stays float32 and is about twice as fast, all else becomes
    float64. Scale X to [0, 1] or to mean 0 and variance 1. y: (N,) of any classes, or (N, labels) of 0
    and 1. The same ``random_state`` gives the same result: masks, order and first weights depend on it alone.

    After `fit`: ``classes_``, ``coefs_``, ``intercepts_``, ``loss_``, ``best_loss_``, ``loss_curve_``,
    ``validation_scores_``, ``best_validation_score_``, ``n_iter_``, ``t_``, ``n_layers_``, ``n_outputs_``,
    ``out_activation_``, ``n_features_in_``, ``feature_names_in_``, as in scikit-learn.

    Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov 2014, JMLR 15:1929-1958.
    """

    class_weight: Any
    classes_: Array

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        class_weight: Any = None,
        dropout: float = 0.5,
        input_dropout: float = 0.0,
        max_norm: float | None = None,
        thin: bool = True,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float | str = "auto",
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
    ) -> None:
        self._take(locals())

    def partial_fit(
        self: Classifier,
        X: Any,
        y: Any,
        *,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Classifier:
        """Train for one more epoch, on X and y.

        ``classes``: all classes of all calls; the first call needs them.
        """
        return self._fit(X, y, sample_weight, partial=True, classes=classes)

    def predict(self, X: Any) -> Array:
        """The likeliest class of each row, (N,), or each label's 0 or 1, (N, labels)."""
        decided = self._decide(self._outputs(X)).astype(int)
        return decided if self._multilabel else self.classes_[decided.reshape(-1)]

    @overload
    def predict_proba(self, X: Any, return_std: Literal[False] = False, samples: int = 100) -> Array: ...
    @overload
    def predict_proba(self, X: Any, return_std: Literal[True], samples: int = 100) -> tuple[Array, Array]: ...
    def predict_proba(
        self, X: Any, return_std: bool = False, samples: int = 100
    ) -> Array | tuple[Array, Array]:
        """The probability of each class, (N, classes), in the order of ``classes_``; or of each label.

        With ``return_std`` it is the mean over ``samples`` thinned networks, and their standard deviation
        comes second, of the same shape: Monte-Carlo dropout (`thinned.uncertainty.predict`, which gives
        quantiles and entropies too). Raises ValueError if nothing drops.
        """
        if return_std:
            return self._samples(X, samples)
        outputs = self._outputs(X)
        last = scratch.Softmax() if self.out_activation_ == "softmax" else scratch.Sigmoid()
        y = last.forward(outputs)
        return np.hstack([1 - y, y]) if len(self.classes_) == 2 and not self._multilabel else y

    def predict_log_proba(self, X: Any) -> Array:
        """The logarithm of `predict_proba`."""
        with np.errstate(divide="ignore"):
            out: Array = np.log(self.predict_proba(X))
        return out

    def _weights(self, y: Any, sample_weight: Any, partial: bool, dtype: Any) -> Array | None:
        weights = super()._weights(y, sample_weight, partial, dtype)
        if self.class_weight is None:
            return weights
        if partial and self.class_weight == "balanced":
            raise ValueError(
                "class_weight must be a dict or None for partial_fit, got 'balanced', which needs all rows"
            )
        by_class = compute_sample_weight(self.class_weight, dense(y))
        return sample_weights(by_class if weights is None else by_class * weights, y.shape[0], dtype)

    def _encode(self, y: Any, fresh: bool, dtype: Any, classes: Any) -> Array:
        """Class numbers (N,) for softmax; 0. and 1. for logistic, (N, 1) of two classes or (N, labels)."""
        check_classification_targets(y)
        multilabel = type_of_target(y) == "multilabel-indicator"
        y = dense(y) if multilabel else column_or_1d(y, warn=True)
        if fresh:
            if classes is None:
                classes = np.arange(y.shape[1]) if multilabel else y
            self.classes_, self._multilabel = np.unique(np.asarray(classes)), multilabel
            self.out_activation_ = "logistic" if multilabel or len(self.classes_) == 2 else "softmax"
            self.n_outputs_ = (
                1 if self.out_activation_ == "logistic" and not multilabel else len(self.classes_)
            )
        elif classes is not None and not np.array_equal(np.unique(np.asarray(classes)), self.classes_):
            raise ValueError(f"classes must be those of the first call, {self.classes_}, got {classes}")
        if multilabel != self._multilabel or (multilabel and y.shape[1] != self.n_outputs_):
            raise ValueError(f"y must have shape {self._shape()}, as at the first call, got {y.shape}")
        if multilabel:
            return y.astype(dtype)
        if not (known := np.isin(y, self.classes_)).all():
            raise ValueError(f"y must hold classes of the first call, {self.classes_}, got {y[~known][0]}")
        codes = np.searchsorted(self.classes_, y)
        return codes[:, None].astype(dtype) if self.out_activation_ == "logistic" else codes

    def _shape(self) -> str:
        return f"(N, {self.n_outputs_})" if self._multilabel else "(N,)"

    def _decide(self, outputs: Array) -> Array:
        """Class numbers (N,), or yes and no (N, n_outputs_)."""
        return outputs.argmax(axis=1) if self.out_activation_ == "softmax" else outputs > 0

    def _score_outputs(self, outputs: Array, targets: Array, weights: Array | None) -> float:
        """The share of rows whose labels are all right."""
        right = (self._decide(outputs) == targets).reshape(len(targets), -1).all(axis=1)
        return float(np.average(right, weights=weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class DropoutMLPRegressor(RegressorMixin, DropoutMLP):
    """A network that predicts numbers, with dropout: scikit-learn's ``MLPRegressor`` and four parameters.

    Parameters, X and the attributes after `fit` are those of `DropoutMLPClassifier`, except ``class_weight``
    and ``classes_``. ``loss`` is "squared_error", half of it, or "poisson", half the deviance of counts y of
    at least 0, whose logarithm the network learns; both are summed over outputs. y: (N,) or (N, outputs);
    scale it like X if it is no count: the first weights suit targets of about 1. ``early_stopping`` holds
    out small and large y alike, and uses R².
    """

    loss: str

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        loss: str = "squared_error",
        dropout: float = 0.5,
        input_dropout: float = 0.0,
        max_norm: float | None = None,
        thin: bool = True,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float | str = "auto",
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
    ) -> None:
        self._take(locals())

    def partial_fit(self: Regressor, X: Any, y: Any, *, sample_weight: ArrayLike | None = None) -> Regressor:
        """Train for one more epoch, on X and y."""
        return self._fit(X, y, sample_weight, partial=True)

    @overload
    def predict(self, X: Any, return_std: Literal[False] = False, samples: int = 100) -> Array: ...
    @overload
    def predict(self, X: Any, return_std: Literal[True], samples: int = 100) -> tuple[Array, Array]: ...
    def predict(self, X: Any, return_std: bool = False, samples: int = 100) -> Array | tuple[Array, Array]:
        """(N,) or (N, outputs).

        With ``return_std`` it is the mean over ``samples`` thinned networks, and their standard deviation
        comes second, as in `DropoutMLPClassifier.predict_proba`. Noise of y is not in it.
        """
        if return_std:
            return self._samples(X, samples)
        y = self._numbers(self._outputs(X))
        return y[:, 0] if self.n_outputs_ == 1 else y

    def _numbers(self, outputs: Array) -> Array:
        with np.errstate(over="ignore"):
            return Exp().forward(outputs) if self.out_activation_ == "exp" else outputs

    def _checked(self) -> tuple[int, ...]:
        _checks.one_of("loss", self.loss, LINKS)
        return super()._checked()

    def _encode(self, y: Any, fresh: bool, dtype: Any, classes: Any) -> Array:
        """Numbers (N, outputs)."""
        y = dense(y)
        if y.dtype.kind not in "biuf" and not all(isinstance(value, numbers.Real) for value in y.flat):
            raise ValueError(
                f"y must hold numbers, got {str(y.flat[0])!r}; for classes: DropoutMLPClassifier"
            )
        y = column_or_1d(y, warn=True)[:, None] if y.ndim == 1 or y.shape[1] == 1 else y
        if fresh:
            self.n_outputs_, self.out_activation_ = y.shape[1], LINKS[self.loss]
        elif y.shape[1] != self.n_outputs_:
            raise ValueError(f"y must have {self.n_outputs_} outputs, as at the first call, got {y.shape[1]}")
        y = y.astype(dtype)
        if self.out_activation_ == "exp" and (least := y.min()) < 0:
            raise ValueError(f"y must be at least 0 for loss='poisson', got {least:g}")
        return y

    def _score_outputs(self, outputs: Array, targets: Array, weights: Array | None) -> float:
        """R², the mean over outputs."""
        numbers = self._numbers(outputs)
        return (
            float(r2_score(targets, numbers, sample_weight=weights)) if np.isfinite(numbers).all() else np.nan
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
