"""The losses, judged by finite differences and by torch's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.by_hand import N, fill, gamma, magnitudes, numeric_gradient, operations, random, within
from helpers.layers import three_layers

from thinned import Key
from thinned.scratch import LogisticCrossEntropy, Loss, PoissonDeviance, SoftmaxCrossEntropy, SquaredError

K = 4
LABELS = np.array([0, 3, 1, 1, 2])
YES = (random("yes", N, K) > 0).astype(float)
SHARES = np.eye(K)[LABELS] * 0.75 + np.eye(K)[LABELS[::-1]] * 0.25  # as of mixed images
WEIGHTS = np.array([0.5, 0.0, 2.0, 1.0, 3.0])
LOSSES: dict[str, tuple[Callable[[], Loss], Any]] = {
    "softmax": (SoftmaxCrossEntropy, LABELS),
    "shares": (SoftmaxCrossEntropy, SHARES),
    "logistic": (LogisticCrossEntropy, YES),
    "squared": (SquaredError, random("numbers", N, K)),
    "poisson": (PoissonDeviance, np.arange(N * K).reshape(N, K) % 7 / 2),
}
EACH = pytest.mark.parametrize("name", LOSSES)
WEIGHED = pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["mean", "weighted"])


def torchs(torch: Any, name: str, x: Any, targets: np.ndarray) -> Any:
    """The loss of each sample, by torch."""
    f, t = torch.nn.functional, torch.from_numpy(np.array(targets))
    if name in ("softmax", "shares"):
        return f.cross_entropy(x, t, reduction="none")
    if name == "logistic":
        return f.binary_cross_entropy_with_logits(x, t, reduction="none").sum(dim=1)
    if name == "poisson":
        likelihood = f.poisson_nll_loss(x, t, log_input=True, full=False, reduction="none")
        return (likelihood + torch.xlogy(t, t) - t).sum(dim=1)
    return f.mse_loss(x, t, reduction="none").sum(dim=1) / 2


def magnitude(name: str, x: np.ndarray) -> float:
    """A bound of what a loss adds up."""
    if name == "poisson":
        return float((np.exp(x) + 6 * (np.abs(x) + 3)).sum())
    return float(((np.abs(x) + 3) ** 2).sum()) if name == "squared" else K * float(np.abs(x).sum() + x.size)


@WEIGHED
@EACH
def test_gradient_is_the_finite_difference(name: str, weights: np.ndarray | None) -> None:
    make, targets = LOSSES[name]
    loss, x = make(), random("x", N, K).copy()
    loss.forward(x, targets, weights)
    gradient = loss.backward()
    error = gamma(N * K + 20) * magnitude(name, x)
    within(gradient, *numeric_gradient(lambda: loss.forward(x, targets, weights), x, error))


@WEIGHED
@EACH
def test_value_and_gradient_are_torchs(name: str, weights: np.ndarray | None, torch: Any) -> None:
    make, targets = LOSSES[name]
    loss, x = make(), 3 * random("x", N, K)
    tensor = torch.tensor(x, requires_grad=True)
    shares = np.full(N, 1 / N) if weights is None else weights / weights.sum()
    expected = (torchs(torch, name, tensor, targets) * torch.from_numpy(shares)).sum()
    expected.backward()
    bound = 2 * gamma(N * K + 20) * magnitude(name, x)
    assert abs(loss.forward(x, targets, weights) - expected.item()) <= bound
    within(loss.backward(), tensor.grad.numpy(), bound)


@EACH
def test_a_sample_of_weight_two_counts_as_two(name: str) -> None:
    make, targets = LOSSES[name]
    loss, x, counts = make(), random("x", N, K), np.array([1, 0, 3, 2, 1])
    value = loss.forward(x, targets, counts.astype(float))
    gradient = loss.backward()
    rows = np.repeat(np.arange(N), counts)
    bound = 2 * gamma(N * K + 20) * magnitude(name, x)
    assert abs(loss.forward(x[rows], targets[rows]) - value) <= bound
    summed = np.zeros_like(gradient)
    np.add.at(summed, rows, loss.backward())
    within(summed, gradient, bound)


@EACH
def test_dtypes_and_what_is_left_alone(name: str) -> None:
    make, targets = LOSSES[name]
    loss, x = make(), random("x", N, K).astype(np.float32)
    kept = x.copy()
    targets = targets if name == "softmax" else targets.astype(np.float32)
    for weights in (None, WEIGHTS.astype(np.float32)):
        loss.forward(x, targets, weights)
        first = loss.backward()
        assert first.dtype == np.float32
        np.testing.assert_array_equal(loss.backward(), first)
    np.testing.assert_array_equal(x, kept)


def test_logistic_loss_is_stable_and_shows_what_is_not_finite() -> None:
    loss, one = LogisticCrossEntropy(), np.array([[1.0]])
    assert loss.forward(np.array([[1e4]]), one) == 0.0
    assert loss.forward(np.array([[-1e4]]), one) == 1e4
    assert np.isfinite(loss.backward()).all()
    assert math.isnan(loss.forward(np.array([[np.nan]]), one))


@EACH
def test_backward_needs_forward(name: str) -> None:
    with pytest.raises(RuntimeError, match="backward: call forward first"):
        LOSSES[name][0]().backward()


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (np.ones(3), ValueError, r"weights must have shape \(5,\)"),
        (np.zeros(N), ValueError, "weights must be at least 0, and not all 0"),
        (np.array([1.0, -1.0, 1, 1, 1]), ValueError, "weights must be at least 0"),
        (np.ones(N, int), TypeError, "weights must hold floating-point numbers"),
    ],
)
@EACH
def test_bad_weights(name: str, weights: Any, error: type[Exception], message: str) -> None:
    make, targets = LOSSES[name]
    with pytest.raises(error, match=message):
        make().forward(random("x", N, K), targets, weights)


@pytest.mark.parametrize("name", ["logistic", "squared", "poisson"])
def test_bad_shapes(name: str) -> None:
    make, targets = LOSSES[name]
    with pytest.raises(ValueError, match=r"must have shape \(N, K\), N and K at least 1, got \(5,\)"):
        make().forward(random("x", N), targets)
    with pytest.raises(ValueError, match=r"targets must have shape \(5, 3\)"):
        make().forward(random("x", N, 3), targets)


def test_poisson_overflows_to_infinity_and_has_no_targets_below_zero() -> None:
    loss, one = PoissonDeviance(), np.array([[1.0]])
    assert loss.forward(np.array([[1e3]]), one) == math.inf
    assert loss.forward(np.array([[0.0]]), one) == 0.0
    with pytest.raises(ValueError, match="targets must be at least 0, got -1"):
        loss.forward(one, -one)


def test_loss_is_torchs_cross_entropy(torch: Any) -> None:
    logits, labels = random("logits", N, 4) * 3, np.array([0, 3, 1, 1, 2])
    loss = SoftmaxCrossEntropy()
    value = loss.forward(logits, labels)
    tensor = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(tensor, torch.from_numpy(labels))
    expected.backward()
    bound = 2 * gamma(N + 4 + 20) * (1 + np.ptp(logits))  # exponents up to the range of the logits
    assert abs(value - expected.item()) <= bound
    within(loss.backward(), tensor.grad.numpy(), bound / N)


def test_loss_gradient_is_the_finite_difference_through_a_network() -> None:
    net, loss = fill(three_layers()), SoftmaxCrossEntropy()
    x, labels, key = random("x", N, 6).copy(), np.array([0, 3, 1, 1, 2]), Key(11)

    def f() -> float:
        return loss.forward(net.forward(x, key), labels) + net.penalty()

    f()
    gradient = net.backward(loss.backward())
    # the loss moves by at most twice as much as a logit
    size = 2 * magnitudes(net).forward(np.abs(x), key).max() + net.penalty()
    error = gamma(operations(net) + N + 4 + 20) * size
    within(gradient, *numeric_gradient(f, x, error))
    for _, param, grad in net.named_params():
        within(grad, *numeric_gradient(f, param, error))


def test_loss_is_stable_and_shows_what_is_not_finite() -> None:
    loss = SoftmaxCrossEntropy()
    assert loss.forward(np.array([[1e4, 0.0], [0.0, -1e4]]), np.array([0, 0])) == 0.0
    assert loss.forward(np.array([[1e4, 0.0]], np.float32), np.array([1])) == 1e4
    assert np.isfinite(loss.backward()).all()
    for bad in (np.nan, np.inf):
        assert math.isnan(loss.forward(np.array([[bad, 0.0]]), np.array([1])))
    assert loss.forward(np.array([[-np.inf, 0.0]]), np.array([0])) == np.inf


def test_bad_labels() -> None:
    loss, logits = SoftmaxCrossEntropy(), random("logits", 3, 10)
    with pytest.raises(RuntimeError, match="call forward first"):
        loss.backward()
    for labels, message in (
        ([0, 1, 10], "labels must be 0 to 9, got 10"),
        ([0, -1, 9], "labels must be 0 to 9, got -1"),
        ([0, 1], r"labels must have shape \(3,\), one for each row of logits, got \(2,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            loss.forward(logits, np.array(labels))
    for dtype in (float, bool):
        with pytest.raises(TypeError, match="labels must be integers"):
            loss.forward(logits, np.zeros(3, dtype))
    with pytest.raises(ValueError, match=r"logits must have shape \(N, K\)"):
        loss.forward(logits[:0], np.zeros(0, int))
