"""Judges of the layers by hand: finite differences, torch's autograd, and how far rounding may take them.

Two results may differ by rounding alone. Its bound is computed: a chain of n operations on numbers
whose absolute values sum to M errs by at most γ_n·M, γ_n = n·u/(1 − n·u) (Higham 2002, section 3.1);
M comes from the same network with all numbers made positive.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from thinned import Key, keep_mask
from thinned.key import normals
from thinned.scratch import (
    BatchNorm,
    DropConnect,
    Dropout,
    GaussianDropout,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    Linear,
    Maxout,
    Normalize,
    ReLU,
    Sigmoid,
    Softmax,
    SpatialDropout,
    Tanh,
    networks,
)

U = 2.0**-53  # float64's unit roundoff
F64: dict[str, Any] = {"dtype": np.float64}
N = 5  # samples
SIZE = 200  # elements of an array under test, at most


def gamma(n: int, u: float = U) -> float:
    """Higham's γ_n: the relative error of n roundings."""
    return n * u / (1 - n * u)


def random(seed: int | str, *shape: int) -> np.ndarray:
    """Normal numbers that a pass must not write to."""
    x = normals(Key(7).fold_in(seed), math.prod(shape)).reshape(shape)
    x.flags.writeable = False
    return x


def numeric_gradient(f: Callable[[], float], x: np.ndarray, error: float) -> tuple[np.ndarray, np.ndarray]:
    """Central differences of f by x, and how far they may be off, where f is computed to within ``error``.

    The quotient D(h) errs by c·h² and by rounding, at most error/h. D(2h) − D(h) is 3c·h², itself known to
    1.5·error/h; so |D(2h) − D(h)| + 3·error/h bounds both.
    """
    quotient, bound = np.empty_like(x), np.empty_like(x)
    for i in np.ndindex(x.shape):
        at, h = x[i], U ** (1 / 3) * max(1.0, abs(x[i]))
        d = []
        for step in (h, 2 * h):
            x[i] = at + step
            above, right = f(), x[i]
            x[i] = at - step
            below, left = f(), x[i]
            d.append((above - below) / (right - left))
        x[i] = at
        quotient[i], bound[i] = d[0], abs(d[1] - d[0]) + 3 * error / h
    return quotient, bound


def within(came: np.ndarray, expected: np.ndarray, bound: Any) -> None:
    assert came.shape == expected.shape
    gap = np.abs(came - expected)
    assert (gap <= bound).all(), (
        f"off by {gap.max():.3g}, allowed {np.broadcast_to(bound, gap.shape).flat[gap.argmax()]:.3g}"
    )


def assert_same_grads(one: Layer, other: Layer) -> None:
    for (name, _, grad), (name2, _, grad2) in zip(one.named_params(), other.named_params(), strict=True):
        assert name == name2
        np.testing.assert_array_equal(grad, grad2)


def fill(layer: Layer) -> Any:
    """Biases, and the weights of a normalisation, that are not what they start as, so that they matter."""
    for name, param, _ in layer.named_params():
        if name.endswith("bias") or (name == "weight" and isinstance(layer, Normalize)):
            param[...] = random(name, *param.shape)
    return layer


# ---- sizes, for the bounds ----


class Magnitude(Layer):
    """Bounds functions of slope ≤ 1: |y| ≤ 1 + |x|; back, |y_k·(g_k − Σ g_j y_j)| ≤ |g_k| + Σ|g_j|."""

    def forward(self, x: np.ndarray, key: Key | None = None) -> np.ndarray:
        return 1 + np.abs(x)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        return np.abs(grad) + np.abs(grad).sum(axis=-1, keepdims=True)


class PositiveGaussian(GaussianDropout):
    """Gaussian dropout's factors made positive."""

    def forward(self, x: np.ndarray, key: Key | None = None) -> np.ndarray:
        return np.abs(super().forward(x, key))

    def backward(self, grad: np.ndarray) -> np.ndarray:
        return np.abs(super().backward(grad))


class AllPieces(Maxout):
    """Bounds Maxout: the largest piece of positive numbers, and back through every piece at once."""

    def _spread(self, grad: np.ndarray) -> np.ndarray:
        return np.tile(grad, (1, self.pieces))


class NormMagnitude(Layer):
    """Bounds a normalisation of x known to η·s, |x| ≤ s, where σ² + ε ≥ ``floor``, r = √floor.

    x − μ is known to 2ηs, so 1/√(σ² + ε) to the relative error 2ηs·σ/(σ² + ε) ≤ ηs/r, and x̂, of n values
    with mean square ≤ 1 and so |x̂| ≤ √n, to ηX, X = (2s/r)(1 + √n/2). Where μ and σ are fixed (|μ| ≤ s),
    |x̂| ≤ 2s/r and its error are below X, too. Back, with |h| ≤ H known to ηH: mean(h·x̂), at most H, to
    ηH(1 + X); x̂·mean(h·x̂) to ηH(√n(1 + X) + X); the whole, at most H(2 + √n)/r, to
    η(H/r)(2 + √n(1 + X) + X + (2 + √n)X).
    """

    def __init__(self, layer: Normalize, floor: float | None = None) -> None:
        super().__init__()
        self.layer, self.root = layer, math.sqrt(floor or layer.eps)
        self.params = {name: np.abs(param) for name, param in layer.params.items()}
        self.grads = {name: np.zeros_like(param) for name, param in layer.params.items()}

    def forward(self, x: np.ndarray, key: Key | None = None) -> np.ndarray:
        s = max(float(np.max(x)), *(float(np.abs(b).max()) for b in self.layer.buffers.values()), 0.0)
        self.n = x.size  # at least the number of values of one mean
        self.X = 2 * s / self.root * (1 + math.sqrt(self.n) / 2)
        weight, bias = (float(p.max()) for p in self.params.values()) if self.params else (1.0, 0.0)
        return np.full(x.shape, 2 * weight * self.X + bias)

    def backward(self, grad: np.ndarray) -> np.ndarray:
        X, n = self.X, math.sqrt(self.n)
        for name, factor in (("weight", 2 * X), ("bias", 1.0)):
            if name in self.grads:
                self.grads[name][...] = factor * grad.sum()
        h = grad.max() * (float(self.params["weight"].max()) if self.params else 1.0)
        return np.full(grad.shape, h / self.root * (2 + n * (1 + X) + X + (2 + n) * (1 + X)))


def magnitudes(layer: Any) -> Any:
    """The same layer or network with positive parameters: on positive input it adds up absolute values."""
    if isinstance(layer, (Sigmoid, Tanh, Softmax)):
        return Magnitude()
    if isinstance(layer, GaussianDropout):
        return PositiveGaussian(layer.p)
    if isinstance(layer, Normalize):
        return NormMagnitude(layer)
    if isinstance(layer, networks.Network):
        return networks.Network({name: magnitudes(child) for name, child in layer.children.items()})
    twin = copy.deepcopy(layer)
    if isinstance(layer, Maxout):
        twin.__class__ = AllPieces
    for _, param, _ in twin.named_params():
        np.abs(param, out=param)
    return twin


def operations(layer: Any) -> int:
    """The longest chain of operations through a layer or network and back, with room for each function."""
    if isinstance(layer, networks.Network):
        return sum(operations(child) for child in layer.children.values())
    if isinstance(layer, Normalize):
        return 4 * SIZE + 40
    return 2 * (layer.n_in + layer.n_out + N + 8) if isinstance(layer, (Linear, Maxout)) else 20


# ---- the same in torch ----


def torch_forward(
    torch: Any, layer: Any, x: Any, key: Key | None, params: dict[str, Any], prefix: str = ""
) -> Any:
    """What ``layer`` computes, written once more in torch, with masks from `keep_mask`."""
    if isinstance(layer, networks.Network):
        for name, child in layer.children.items():
            x = torch_forward(torch, child, x, key and key.fold_in(name), params, f"{prefix}{name}.")
        return x
    weight, bias = params.get(prefix + "weight"), params.get(prefix + "bias")
    if isinstance(layer, DropConnect) and key is not None:
        shape = (len(x), *weight.shape) if layer.per_sample else weight.shape
        kept = torch.from_numpy(keep_mask(shape, layer.p, key=key))
        masked = torch.where(kept, weight, 0.0) / (1 - layer.p)
        return (masked * x[:, None]).sum(dim=-1) + bias
    if isinstance(layer, Linear):
        return torch.nn.functional.linear(x, weight, bias)
    if isinstance(layer, Maxout):
        pieces = torch.nn.functional.linear(x, weight, bias).split(layer.n_out, dim=1)
        return torch.stack(pieces).max(dim=0).values
    if isinstance(layer, Normalize):
        return torch_norm(torch, layer, x, key, weight, bias)
    if isinstance(layer, (Dropout, SpatialDropout)):
        test = isinstance(layer, Dropout) and layer.rescale == "test"
        if key is None:
            return x * (1 - layer.p) if test else x
        units = (*x.shape[:2], *[1] * (x.ndim - 2)) if isinstance(layer, SpatialDropout) else tuple(x.shape)
        kept = torch.from_numpy(keep_mask(units, layer.p, key=key))
        return torch.where(kept, x, 0.0) / (1 if test else 1 - layer.p)
    if isinstance(layer, GaussianDropout):
        if key is None:
            return x
        noise = normals(key, x.numel()).reshape(tuple(x.shape))
        return x * torch.from_numpy(1 + (layer.p / (1 - layer.p)) ** 0.5 * noise)
    if isinstance(layer, Softmax):
        return torch.softmax(x, -1)
    return {ReLU: torch.relu, Sigmoid: torch.sigmoid, Tanh: torch.tanh}[type(layer)](x)


def torch_norm(torch: Any, layer: Any, x: Any, key: Key | None, weight: Any, bias: Any) -> Any:
    """A normalisation by torch's own function."""
    f = torch.nn.functional
    if isinstance(layer, BatchNorm):
        mean, var = (torch.tensor(buffer) for buffer in layer.buffers.values())
        return f.batch_norm(x, mean, var, weight, bias, key is not None, layer.momentum, layer.eps)
    if isinstance(layer, LayerNorm):
        return f.layer_norm(x, layer.shape, weight, bias, layer.eps)
    if isinstance(layer, InstanceNorm):
        return f.instance_norm(x, weight=weight, bias=bias, eps=layer.eps)
    assert isinstance(layer, GroupNorm)
    return f.group_norm(x, layer.groups, weight, bias, layer.eps)


def torch_penalty(layer: Any, params: dict[str, Any], prefix: str = "") -> Any:
    if isinstance(layer, networks.Network):
        return sum(torch_penalty(child, params, f"{prefix}{name}.") for name, child in layer.children.items())
    layer = layer.linear if isinstance(layer, Maxout) else layer
    if not isinstance(layer, Linear):
        return 0.0
    w, b = params[prefix + "weight"], params[prefix + "bias"]
    total = layer.l1 * w.abs().sum() + layer.l2 / 2 * (w**2).sum()
    return total + layer.bias_l1 * b.abs().sum() + layer.bias_l2 / 2 * (b**2).sum()


# ---- the judges ----


def judge_by_differences(layer: Any, x: np.ndarray, key: Key | None) -> None:
    """The backward pass of f = Σ weights·y + penalty is the finite difference, by x and by each parameter."""
    x = x.copy()
    weights = random("weights", *layer.forward(x, key).shape)
    assert max(x.size, weights.size) <= SIZE

    def f() -> float:
        return float(np.vdot(weights, layer.forward(x, key))) + layer.penalty()

    size = float(np.vdot(np.abs(weights), magnitudes(layer).forward(np.abs(x), key))) + layer.penalty()
    error = gamma(operations(layer) + weights.size) * size
    layer.forward(x, key)
    gradient = layer.backward(weights)
    within(gradient, *numeric_gradient(f, x, error))
    for _, param, grad in layer.named_params():
        within(grad, *numeric_gradient(f, param, error))


def judge_by_torch(torch: Any, layer: Any, x: np.ndarray, key: Key | None, twin: Any = None) -> None:
    """Output, penalty and all gradients are those of `torch_forward`; ``twin`` as `magnitudes` gives it."""
    params = {n: torch.tensor(p, requires_grad=True) for n, p, _ in layer.named_params()}
    tensor = torch.tensor(x, requires_grad=True)
    y = torch_forward(torch, layer, tensor, key, params)
    weights = random("weights", *y.shape)
    assert max(x.size, weights.size) <= SIZE
    penalty = torch_penalty(layer, params)
    ((torch.from_numpy(weights.copy()) * y).sum() + penalty).backward()

    twin, n = twin or magnitudes(layer), operations(layer)
    size = twin.forward(np.abs(x), key)
    size_x = twin.backward(np.abs(weights))
    # a bounded function's slope moves with its input's error: by |σ''| ≤ 1 times that
    slope = 1 + size.max() if bounded(layer) else 1.0
    within(layer.forward(x, key), y.detach().numpy(), 2 * gamma(n) * size)
    within(layer.backward(weights), tensor.grad.numpy(), 2 * gamma(n) * slope * size_x)
    for (name, _, grad), (_, _, size_grad) in zip(layer.named_params(), twin.named_params(), strict=True):
        within(grad, params[name].grad.numpy(), 2 * gamma(n) * slope * size_grad)
    count = sum(p.size for _, p, _ in layer.named_params())
    came = float(getattr(penalty, "detach", lambda: 0.0)())
    assert abs(layer.penalty() - came) <= 2 * gamma(count + 4) * layer.penalty()


def bounded(layer: Any) -> bool:
    """Whether a logistic, tanh or softmax layer is in it."""
    if isinstance(layer, networks.Network):
        return any(bounded(child) for child in layer.children.values())
    return isinstance(layer, (Sigmoid, Tanh, Softmax))
