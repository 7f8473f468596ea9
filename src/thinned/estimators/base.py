"""The base class of classifier and regressor: parameters, training, evaluation."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

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
}


class DropoutMLP(BaseEstimator):
    """The common part; each subclass defines its targets, outputs and scores."""

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
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
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.max_norm = max_norm
        self.thin = thin
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change

    @property
    def coefs_(self) -> list[Array]:
        """The weights of each layer, (n_in, n_out), the layout of scikit-learn: views, not copies."""
        return [layer.params["weight"].T for layer in self._linears()]

    @property
    def intercepts_(self) -> list[Array]:
        """The biases of each layer, (n_out,): views, not copies."""
        return [layer.params["bias"] for layer in self._linears()]

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> Any:
        """Train on X (N, features), dense or sparse, and y; a sample of weight 2 counts twice.

        Raises ValueError or TypeError where a parameter is out of its range or the data do not fit, and
        ValueError where training diverged. Warns (ConvergenceWarning) where ``max_iter`` ended it.
        """
        return self._fit(X, y, sample_weight)

    # ---- defined by the subclasses ----

    def _encode(self, y: Any, fresh: bool, dtype: Any, classes: Any) -> Array:
        """Targets as the loss takes them; sets ``out_activation_`` and ``n_outputs_`` if ``fresh``."""
        raise NotImplementedError

    def _score_outputs(self, outputs: Array, targets: Array, weights: Array | None) -> float:
        """The value of `score`; higher is better."""
        raise NotImplementedError

    # ---- training ----

    def _fit(self, X: Any, y: Any, sample_weight: Any, partial: bool = False, classes: Any = None) -> Any:
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
        weights = None if sample_weight is None else sample_weights(sample_weight, X.shape[0], X.dtype)
        targets = self._encode(y, fresh, X.dtype, classes)
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
        self.n_layers_, self.t_ = len(sizes), 0
        self.loss_curve_: list[float] = []
        self.validation_scores_: list[float] | None = None
        self.best_validation_score_: float | None = None

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
        best, stale, learned = -np.inf, 0, None
        for epoch in range(1, self.max_iter + 1):
            self.n_iter_, self.loss_ = epoch, self._epoch(net, loss, data, rows)
            if not np.isfinite(self.loss_):
                raise ValueError(_diverged(epoch))
            self._tell("loss", self.loss_)
            self.loss_curve_.append(self.loss_)
            self.best_loss_ = None if self.early_stopping else min(self.loss_curve_)
            if partial:
                return
            value = self._judge(loss, data.take(judges))
            stale = stale + 1 if value < best + self.tol else 0
            if value > best:
                best, learned = value, self._net.get_params() if self.early_stopping else None
            if stale > self.n_iter_no_change:
                if self._last_rate():
                    break
                stale = 0
        else:
            warnings.warn(
                f"max_iter = {self.max_iter} epochs are over, and training still improves; "
                "raise max_iter, learning_rate_init or tol",
                ConvergenceWarning,
                stacklevel=4,
            )
        if learned is not None:
            self._net.set_params(learned)

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
            self._optimizer.lr = self._rate() / (self.t_ + 1) ** self.power_t
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
        score = self._score_outputs(outputs, targets, weights)
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
        self._optimizer.lr /= 5
        return False

    def _split(self, targets: Array) -> tuple[Array, Array]:
        """The rows to train on, and the rows that `_judge` evaluates."""
        if self.early_stopping:
            return hold_out(targets, self.validation_fraction, self._key.fold_in("held out"))
        n = len(targets)
        return np.arange(n), choose(self._key.fold_in("watched"), n, min(n, WATCHED))

    # ---- evaluation ----

    def _outputs(self, X: Any) -> Array:
        """The network's outputs for a caller's X: (N, n_outputs_)."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=DTYPES, reset=False)
        return self._evaluate(X)

    def sampled(self, X: Any) -> tuple[scratch.Network, Any, str]:
        """For `thinned.uncertainty`: the network, the checked X, and the kind of the outputs.

        Each row has a mask of its own. For two classes the outputs are the logits of both.
        """
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=DTYPES, reset=False)
        layers = list(_twin(self._net).children.values())
        outputs = {"softmax": "logits", "logistic": "labels", "identity": "numbers"}[self.out_activation_]
        if self.n_outputs_ == 1 and outputs == "numbers":
            layers.append(Column())
        elif self.n_outputs_ == 1 and not self._multilabel:
            layers[-1], outputs = with_zero(layers[-1]), "logits"
        return scratch.Sequential(*layers), X, outputs

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

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _twin(net: scratch.Network) -> scratch.Network:
    """The same parameters in other layers, which hold what a pass saves: a fitted model holds no data."""
    return scratch.Sequential(*(copy.copy(layer) for layer in net.children.values()))


def _diverged(epoch: int) -> str:
    return f"training diverged in epoch {epoch}: scale X and y, or lower learning_rate_init"
