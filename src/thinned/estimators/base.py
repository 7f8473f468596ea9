"""The base class of classifier and regressor: parameters, training, evaluation."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from thinned import _checks, kernels, scratch
from thinned.activations import BY_SKLEARN_NAME
from thinned.estimators.data import (
    Array,
    Column,
    Data,
    Exp,
    Views,
    dense,
    dense_blocks,
    hold_out,
    row_ids,
    sample_weights,
    with_zero,
)
from thinned.key import Key, choose

DTYPES = (np.float64, np.float32)  # of X that are kept; any other becomes the first
WATCHED = 256  # rows whose loss decides whether to stop, where masks make the loss of an epoch noisy
GROUPS = 8  # of rows in a batch, each with a pick of its own: 25 rows a group at the usual batch of 200
LARGEST_RATE = 0.01  # that "auto" chooses
SMALLEST_RATE = 1e-6  # at which "adaptive" stops, as in scikit-learn
LOSSES: dict[str, type[scratch.Loss]] = {
    "softmax": scratch.SoftmaxCrossEntropy,
    "logistic": scratch.LogisticCrossEntropy,
    "identity": scratch.SquaredError,
    "exp": scratch.PoissonDeviance,
}
OUTPUTS = {"softmax": "logits", "logistic": "labels", "identity": "numbers", "exp": "numbers"}
Me = TypeVar("Me", bound="DropoutMLP")


@dataclass
class Best:
    """The best value of training so far, the epochs since then, and the parameters if they are restored."""

    value: float = -np.inf
    stale: int = 0
    params: dict[str, Array] | None = None


class DropoutMLP(BaseEstimator):
    """The common part; each subclass defines its targets, outputs and scores."""

    hidden_layer_sizes: Any
    activation: str
    dropout: float
    input_dropout: float
    max_norm: float | None
    thin: bool
    solver: str
    alpha: float
    batch_size: int | str
    learning_rate: str
    learning_rate_init: float | str
    power_t: float
    max_iter: int
    shuffle: bool
    random_state: Any
    tol: float
    verbose: bool | int
    warm_start: bool
    momentum: float
    nesterovs_momentum: bool
    early_stopping: bool
    validation_fraction: float
    beta_1: float
    beta_2: float
    epsilon: float
    n_iter_no_change: float

    n_features_in_: int
    n_outputs_: int
    n_layers_: int
    n_iter_: int
    t_: int
    out_activation_: str
    loss_: float
    best_loss_: float | None
    loss_curve_: list[float]
    validation_scores_: list[float] | None
    best_validation_score_: float | None

    def _take(self, settings: dict[str, Any]) -> None:
        """Keep the arguments of ``__init__`` as they are: scikit-learn's checks come with `fit`."""
        self.__dict__.update(
            {name: value for name, value in settings.items() if name not in ("self", "__class__")}
        )

    @property
    def coefs_(self) -> Views:
        """The weights of each layer, (n_in, n_out), the layout of scikit-learn.

        They are views of the network. Setting the list, or one of its places, copies values into it.
        """
        return Views("coefs_", [layer.params["weight"].T for layer in self._linears()])

    @coefs_.setter
    def coefs_(self, values: Sequence[ArrayLike]) -> None:
        check_is_fitted(self)
        self.coefs_[:] = values

    @property
    def intercepts_(self) -> Views:
        """The biases of each layer, (n_out,): views, which can be set as those of ``coefs_``."""
        return Views("intercepts_", [layer.params["bias"] for layer in self._linears()])

    @intercepts_.setter
    def intercepts_(self, values: Sequence[ArrayLike]) -> None:
        check_is_fitted(self)
        self.intercepts_[:] = values

    def fit(self: Me, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Me:
        """Train on X (N, features), dense or sparse, and y; a sample of weight 2 counts twice.

        Ctrl-C ends training early: it warns and returns the network as it is then. With ``early_stopping`` it
        is the best so far.

        Raises ValueError or TypeError where a parameter is out of its range or the data do not fit, and
        ValueError where training diverged. Warns (ConvergenceWarning) where ``max_iter`` ended it.
        """
        return self._fit(X, y, sample_weight)

    # ---- defined by the subclasses ----

    def _encode(self, y: Any, fresh: bool, dtype: Any, classes: Any) -> Array:
        """Targets as the loss takes them; sets ``out_activation_`` and ``n_outputs_`` if ``fresh``."""
        raise NotImplementedError

    def _score_outputs(self, outputs: Array, targets: Array, weights: Array | None) -> float:
        """The value of `score`; higher is better. NaN where outputs are no numbers."""
        raise NotImplementedError

    def _weights(self, y: Any, sample_weight: Any, partial: bool, dtype: Any) -> Array | None:
        """The weight of each row, (N,), or None where all are 1."""
        return None if sample_weight is None else sample_weights(sample_weight, y.shape[0], dtype)

    # ---- training ----

    def _fit(self: Me, X: Any, y: Any, sample_weight: Any, partial: bool = False, classes: Any = None) -> Me:
        """Train a new network, or continue with the last one; ``partial``: for one epoch."""
        hidden = self._checked()
        fresh = not ((partial or self.warm_start) and hasattr(self, "_net"))
        if partial and self.early_stopping:
            raise ValueError("early_stopping must be False for partial_fit, got True")
        if partial and fresh and classes is None and is_classifier(self):
            raise ValueError("classes must be given at the first call of partial_fit")
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            dtype=DTYPES if fresh else self._dtype,
            order="C",
            multi_output=True,
            reset=fresh,
        )
        targets = self._encode(y, fresh, X.dtype, classes)
        weights = self._weights(y, sample_weight, partial, X.dtype)
        data = Data(X, targets, weights)
        if weights is not None and not weights.all():  # a row of weight 0 is left out
            data = data.take(np.flatnonzero(weights))
        if fresh:
            self._start((X.shape[1], *hidden, self.n_outputs_), X.dtype)
        if fresh or not partial:
            self._optimizer = self._new_optimizer()
        with np.errstate(over="ignore", invalid="ignore"):  # divergence raises an error of its own
            self._train(data, partial)
        if not self._net.finite():
            raise ValueError(_diverged(self.n_iter_))
        return self

    def _start(self, sizes: tuple[int, ...], dtype: Any) -> None:
        """Make a new network, and reset what training records."""
        high, low = check_random_state(self.random_state).randint(1 << 32, size=2, dtype=np.uint64)
        self._key, self._dtype, self._epochs = Key(int(high) << 32 | int(low)), dtype, 0
        self._net = scratch.mlp(
            sizes,
            key=self._key.fold_in("weights"),
            drop=scratch.Dropout,
            p=self.dropout,
            input_p=self.input_dropout,
            activation=BY_SKLEARN_NAME[self.activation],
            init="xavier",  # as scikit-learn's, for every activation
            max_norm=self.max_norm,
            dtype=dtype,
        )
        self.n_layers_, self.t_, self.n_iter_ = len(sizes), 0, 0
        self.loss_, self.best_loss_, self.loss_curve_ = np.inf, np.inf, []
        self.validation_scores_, self.best_validation_score_ = None, None

    def _new_optimizer(self) -> scratch.Optimizer:
        if self.solver == "adam":
            return scratch.Adam(self._rate(), self.beta_1, self.beta_2, self.epsilon)
        nesterov = self.nesterovs_momentum and self.momentum > 0
        return scratch.SGD(self._rate(), self.momentum, nesterov)

    def _rate(self) -> float:
        """The first learning rate; ``"auto"`` is 1/(units of the widest hidden layer), at most 0.01."""
        if self.learning_rate_init != "auto":
            return float(self.learning_rate_init)
        widest = max((layer.n_out for layer in [*self._linears()][:-1]), default=1)
        return min(LARGEST_RATE, 1.0 / widest)

    def _train(self, data: Data, partial: bool) -> None:
        """Train until nothing improves, or for ``max_iter`` epochs; early stopping then restores the best."""
        rows, judges = self._split(data.targets)
        net, loss = _twin(self._net), LOSSES[self.out_activation_]()
        if self.thin:
            net = scratch.Thin(net, GROUPS)
        if self.dropout or self.input_dropout:
            data = data._replace(ids=row_ids(data.X, data.targets))
        best, self.n_iter_ = Best(), 0
        try:
            for epoch in range(1, self.max_iter + 1):
                loss_ = self._epoch(net, loss, data, rows)
                self.n_iter_, self.loss_ = epoch, loss_
                if not np.isfinite(self.loss_):
                    raise ValueError(_diverged(epoch))
                self._tell("loss", self.loss_)
                self.loss_curve_.append(self.loss_)
                self.best_loss_ = None if self.early_stopping else min(self.loss_curve_)
                if partial:
                    return
                if self._stops(self._judge(loss, data.take(judges)), best):
                    break
            else:
                self._warn(
                    f"max_iter = {self.max_iter} epochs are over, and training still improves; "
                    "raise max_iter, learning_rate_init or tol",
                    ConvergenceWarning,
                )
        except KeyboardInterrupt:
            self._warn(
                f"training was interrupted in epoch {self.n_iter_ + 1}; the network is kept", UserWarning
            )
            self._net.project()  # it may have been in the middle of a step
        if best.params is not None:
            self._net.set_params(best.params)

    def _stops(self, value: float, best: Best) -> bool:
        """Whether training ends after an epoch of that value; keeps parameters that are to be restored."""
        best.stale = best.stale + 1 if value < best.value + self.tol else 0
        if value > best.value:
            best.value, best.params = value, self._net.get_params() if self.early_stopping else None
        if best.stale <= self.n_iter_no_change:
            return False
        best.stale = 0
        return self._last_rate()

    @staticmethod
    def _warn(text: str, kind: type[Warning]) -> None:
        warnings.warn(text, kind, stacklevel=5)  # where the user called `fit`

    def _epoch(self, net: scratch.Network, loss: scratch.Loss, data: Data, rows: Array) -> float:
        """Train on every row once, in random order; returns the mean training loss, penalty included."""
        key = self._key.fold_in(self._epochs)
        n = len(rows)
        size = min(200 if self.batch_size == "auto" else int(self.batch_size), n)
        if self.shuffle:
            rows = rows[kernels.permutation(key.fold_in("order"), n)]
        total = mass = 0.0
        for start in range(0, n, size):
            x, targets, weights, _ = data.batch(rows[start : start + size])
            here = len(targets) if weights is None else float(weights.sum())
            for layer in self._linears(net):
                layer.l2 = self.alpha / here  # scikit-learn's: alpha/2·‖W‖² once for a batch
            outputs = net.forward(dense(x), key.fold_in(start))
            total += here * (loss.forward(outputs, targets, weights) + net.penalty())
            mass += here
            net.param_grads(loss.backward())
            self._optimizer.step(net)
        self._epochs += 1
        self.t_ += n
        if self.solver == "sgd" and self.learning_rate == "invscaling":
            self._change_rate(self._rate() / (self.t_ + 1) ** self.power_t)
        return total / mass

    def _judge(self, loss: scratch.Loss, judges: Data) -> float:
        """The value that must rise for training to continue: the score of held-out rows, or minus the loss.

        Masks make the training loss noisy. With dropout it is the loss of the whole network on WATCHED rows.
        """
        if not self.early_stopping and self.dropout == self.input_dropout == 0:
            return -self.loss_
        X, targets, weights, _ = judges
        outputs = self._evaluate(X)
        if not self.early_stopping:
            return -loss.forward(outputs, targets, weights)
        score = self._score_outputs(outputs, targets, weights) if np.isfinite(outputs).all() else np.nan
        if not np.isfinite(score):
            raise ValueError(_diverged(self.n_iter_))
        self._tell("validation score", score)
        self.validation_scores_ = [*(self.validation_scores_ or ()), score]
        self.best_validation_score_ = max(self.validation_scores_)
        return score

    def _tell(self, name: str, value: float) -> None:
        if self.verbose:
            print(f"epoch {self.n_iter_}: {name} {value:.6f}")

    def _last_rate(self) -> bool:
        """Whether to stop where nothing improves; ``"adaptive"`` first continues with a fifth of the rate."""
        adaptive = self.solver == "sgd" and self.learning_rate == "adaptive"
        if not adaptive or self._optimizer.lr <= SMALLEST_RATE:
            return True
        self._change_rate(self._optimizer.lr / 5)
        return False

    def _change_rate(self, lr: float) -> None:
        assert isinstance(self._optimizer, scratch.SGD)
        self._optimizer.change_rate(lr)

    def _split(self, targets: Array) -> tuple[Array, Array]:
        """The rows to train on, and the rows that `_judge` evaluates."""
        if self.early_stopping:
            return hold_out(targets, self.validation_fraction, self._key.fold_in("held out"))
        n = len(targets)
        return np.arange(n), choose(self._key.fold_in("watched"), n, min(n, WATCHED))

    # ---- evaluation ----

    def _outputs(self, X: Any) -> Array:
        """The network's outputs for a caller's X: (N, n_outputs_)."""
        return self._evaluate(self._rows(X))

    def _rows(self, X: Any) -> Any:
        """A caller's X, checked; NotFittedError before `fit`."""
        check_is_fitted(self)
        return validate_data(self, X, accept_sparse="csr", dtype=DTYPES, reset=False)

    def sampled(self, X: Any) -> tuple[scratch.Network, Any, str]:
        """For `thinned.uncertainty`: the network, the checked X, and the kind of the outputs.

        Each row has a mask of its own. For two classes the outputs are the logits of both.
        """
        X = self._rows(X)
        layers = list(_twin(self._net).children.values())
        outputs = OUTPUTS[self.out_activation_]
        if self.out_activation_ == "exp":
            layers.append(Exp())
        if self.n_outputs_ == 1 and outputs == "numbers":
            layers.append(Column())
        elif self.n_outputs_ == 1 and not self._multilabel:
            layers[-1], outputs = with_zero(layers[-1]), "logits"
        return scratch.Sequential(*layers), X, outputs

    def _samples(self, X: Any, samples: int) -> tuple[Array, Array]:
        """Mean and standard deviation of the predictions of that number of thinned networks."""
        from thinned.uncertainty import predict

        check_is_fitted(self)
        key = self._key.fold_in("samples")
        found = predict(self, X, samples, key=key, quantiles=(), progress=False)
        return found.mean, found.std

    def _evaluate(self, X: Any) -> Array:
        """The outputs of the last linear layer in evaluation: (N, n_outputs_)."""
        net = _twin(self._net)
        return np.concatenate([net.predict(block) for block in dense_blocks(X)])

    def _linears(self, net: scratch.Network | None = None) -> Iterator[scratch.Linear]:
        layers = (self._net if net is None else net).children.values()
        return (layer for layer in layers if isinstance(layer, scratch.Linear))

    # ---- parameters ----

    def _checked(self) -> tuple[int, ...]:
        """Check all parameters, which scikit-learn forbids in ``__init__``; returns the hidden sizes."""
        if self.solver == "lbfgs":
            raise ValueError(
                "solver must be one of 'sgd', 'adam', got 'lbfgs': it needs the same loss at each call, "
                "and dropout changes it; use MLPClassifier or MLPRegressor for it"
            )
        for name, choices in (
            ("solver", ("sgd", "adam")),
            ("activation", BY_SKLEARN_NAME),
            ("learning_rate", ("constant", "invscaling", "adaptive")),
            *((name, (True, False)) for name in ("thin", "shuffle", "warm_start", "early_stopping")),
            ("nesterovs_momentum", (True, False)),
        ):
            _checks.one_of(name, getattr(self, name), choices)
        for name in ("dropout", "input_dropout"):
            if _checks.probability(name, getattr(self, name)) == 1:
                raise ValueError(f"{name} must be less than 1, got 1: nothing would be left to learn from")
        for name in ("alpha", "power_t", "tol"):
            _checks.non_negative(name, getattr(self, name))
        if self.learning_rate_init != "auto":
            _checks.positive("learning_rate_init", self.learning_rate_init)
        for name in ("epsilon",) if self.max_norm is None else ("epsilon", "max_norm"):
            _checks.positive(name, getattr(self, name))
        for name in ("momentum", "beta_1", "beta_2", "validation_fraction"):
            if not 0 <= _checks.number(name, getattr(self, name)) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name):g}")
        _checks.positive_int("max_iter", self.max_iter)
        if self.n_iter_no_change != np.inf:
            _checks.positive_int("n_iter_no_change", self.n_iter_no_change)
        if self.batch_size != "auto":
            _checks.positive_int("batch_size", self.batch_size)
        sizes = np.atleast_1d(np.asarray(self.hidden_layer_sizes, dtype=object)).tolist()
        return tuple(_checks.positive_int("hidden_layer_sizes", size) for size in sizes)

    def onnx_shape_calculator(self) -> Any:
        """For `skl2onnx`: the function that gives the shapes of the outputs."""
        from thinned.estimators import onnx

        return onnx.shapes

    def onnx_converter(self) -> Any:
        """For `skl2onnx`: the function that writes the network."""
        from thinned.estimators import onnx

        return onnx.convert

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _twin(net: scratch.Network) -> scratch.Network:
    """The same parameters in other layers, which hold what a pass saves: a fitted model holds no data."""
    return scratch.Sequential(*(copy.copy(layer) for layer in net.children.values()))


def _diverged(epoch: int) -> str:
    return f"training diverged in epoch {epoch}: scale X and y, or lower learning_rate_init"
