"""Deep Boltzmann machines: every layer sees the one below and the one above."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from thinned import _array, _checks
from thinned.key import Key, is_key
from thinned.scratch.boltzmann.machine import Machine, Upward, layer_sizes, sample, units
from thinned.scratch.boltzmann.rbm import RBM

State = list[Any]  # the units of each layer, visible first: (N, n_l), binary or probabilities


class DBM(Machine):
    """A deep Boltzmann machine: E(h) = −Σ_l h_{l+1}ᵀ W_l h_l − Σ_l b_lᵀ h_l over binary h_0 = v, …, h_L.

    ``sizes`` (n_0, …, n_L); ``params``: ``weight0`` … (n_{l+1}, n_l), ``bias0`` … (n_l,). ``iterations``: of
    mean-field inference. ``l2``: the loss gets l2/2·‖W‖².

    Call `pretrain`, then `fit`. The data term of the gradient takes mean-field posteriors, the model term
    chains that continue from step to step.

    Raises ValueError or TypeError where there are fewer than two sizes, a number is not positive, ``l2`` is
    negative, or ``key`` is no key.

    Source: Salakhutdinov and Hinton 2009, AISTATS, PMLR 5:448-455.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        key: Key,
        l2: float = 0.0,
        iterations: int = 10,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(l2, dtype)
        self.sizes, key = layer_sizes(sizes), is_key("key", key)
        self.iterations = _checks.positive_int("iterations", iterations)
        for i, (n_in, n_out) in enumerate(pairwise(self.sizes)):
            self._make(f"weight{i}", key.fold_in(i), n_out, n_in)
        for i, n in enumerate(self.sizes):
            self._make(f"bias{i}", key, n)

    persists = True

    @property
    def top(self) -> int:
        """L, the number of hidden layers."""
        return len(self.sizes) - 1

    def pretrain(self, x: Any, *, key: Key, lr: float = 0.05, **how: Any) -> list[list[float]]:
        """Greedy pretraining: an RBM for each pair of layers; their averages are the machine.

        Alone, the RBM of layers l and l + 1 lacks what they will get from l − 1 and l + 2. So it has two tied
        copies of its lower layer, where another layer comes above, and two of its upper layer, where another
        is below: h_{l+1} gets 2 W_l h_l + c_l. In the machine each inner layer takes half of what the RBM
        below and half of what the RBM above gives it: h_l gets W_{l−1} h_{l−1} + W_lᵀ h_{l+1} + b_l, where
        b_l is the mean of the biases it has in both.

        With m and n copies the gradient by W is m·n times that of one pair, and max(m, n) times its change
        enters the inputs: ``lr``, for RBMs without copies, is divided by m·n·max(m, n).

        ``how``: all other arguments of `RBM.fit`. Returns the reconstruction errors of each RBM.
        """
        key, lr = is_key("key", key), _checks.positive("lr", lr)
        errors, last = [], self.top - 1
        biases = [np.zeros((0, n)) for n in self.sizes]
        for i, (n_in, n_out) in enumerate(pairwise(self.sizes)):
            copies = (2 if i < last else 1, 2 if i else 1)
            own = key.fold_in(i)
            rbm = RBM(n_in, n_out, key=own.fold_in("init"), l2=self.l2, copies=copies, dtype=self.dtype)
            rate = lr / (math.prod(copies) * max(copies))
            errors.append(rbm.fit(x, key=own, lr=rate, **how))
            x = rbm.up(x)
            self.params[f"weight{i}"][...] = rbm.params["weight"]
            biases[i] = np.vstack([biases[i], rbm.params["visible"]])
            biases[i + 1] = np.vstack([biases[i + 1], rbm.params["hidden"]])
        for i, found in enumerate(biases):
            self.params[f"bias{i}"][...] = found.mean(axis=0)
        return errors

    def _from_below(self, i: int, h: Any) -> Any:
        """W_{i−1} h_{i−1}: (N, n_{i−1}) -> (N, n_i)."""
        return _array.linear(h, self.own(f"weight{i - 1}", h))

    def _from_above(self, i: int, h: Any) -> Any:
        """W_iᵀ h_{i+1}: (N, n_{i+1}) -> (N, n_i)."""
        return _array.linear(h, self.own(f"weight{i}", h).T)

    def given(self, i: int, state: State) -> Any:
        """P(h_i = 1 | the layers beside it) = σ(W_{i−1} h_{i−1} + W_iᵀ h_{i+1} + b_i): (N, n_i)."""
        inputs = self.own(f"bias{i}", state[0])
        if i > 0:
            inputs = self._from_below(i, state[i - 1]) + inputs
        if i < self.top:
            inputs = self._from_above(i, state[i + 1]) + inputs
        return _array.sigmoid(inputs)

    def bottom_up(self, v: Any) -> State:
        """v and h_l = σ(2 W_{l−1} h_{l−1} + b_l), l < L; the top has nothing above it: σ(W h + b).

        The factor 2 replaces the input from above, which is not known yet. Mean-field inference begins here.
        """
        state = [_array.cast(units("v", v, self.sizes[0]), self.own("weight0", v))]
        for i, (weight, bias) in enumerate(self.upward()):
            like = state[i]
            state.append(
                _array.sigmoid(_array.linear(like, _array.to_like(weight, like), _array.to_like(bias, like)))
            )
        return state

    def mean_field(self, v: Any) -> State:
        """v and the means μ_l of the factorised posterior Π_l q(h_l | v) that is nearest to the true one.

        Fixed-point updates μ_l ← σ(W_{l−1} μ_{l−1} + W_lᵀ μ_{l+1} + b_l), odd layers, then even ones: each
        maximises `bound` over its layers.
        """
        state = self.bottom_up(v)
        for _ in range(self.iterations if self.top > 1 else 0):  # one hidden layer: bottom_up is exact
            for i in (*range(1, self.top + 1, 2), *range(2, self.top + 1, 2)):
                state[i] = self.given(i, state)
        return state

    def energy(self, state: State) -> Any:
        """E of the states, or its mean under the factorised distribution with these means: (N,)."""
        total = 0.0
        for i, h in enumerate(self._layers(state)):
            inputs = self.own(f"bias{i}", h)
            if i:
                inputs = self._from_below(i, state[i - 1]) + inputs
            total = total - (inputs * h).sum(-1)
        return total

    def bound(self, state: State) -> Any:
        """ln P(v) + ln Z is at least −E(v, μ) + Σ H(μ), H the entropy of each unit in nats: (N,)."""
        entropies = 0.0
        for mu in self._layers(state)[1:]:
            tiny = float(np.finfo(self.dtype).tiny)
            p, q = mu.clip(min=tiny), (1.0 - mu).clip(min=tiny)  # 0·ln 0 = 0
            entropies = entropies - (mu * _array.log(p) + (1.0 - mu) * _array.log(q)).sum(-1)
        return entropies - self.energy(state)

    def gibbs(self, state: State, key: Key, steps: int = 1) -> State:
        """Repeat ``steps`` times: sample the odd layers, then the even ones. v is layer 0."""
        state, key = self._layers(state), is_key("key", key)
        for t in range(_checks.positive_int("steps", steps)):
            now = key.fold_in(t)
            for i in (*range(1, self.top + 1, 2), *range(0, self.top + 1, 2)):
                state[i] = sample(self.given(i, state), now.fold_in(i))
        return state

    def _layers(self, state: State) -> State:
        """A new list of ``state``, which has an array (N, n_l) for each layer."""
        if not isinstance(state, (list, tuple)) or len(state) != len(self.sizes):
            found = f"{len(state)} of them" if isinstance(state, (list, tuple)) else type(state).__name__
            raise ValueError(
                f"state must be a list of {len(self.sizes)} arrays, the visible layer first, as start and "
                f"mean_field give it, got {found}"
            )
        return [units(f"state[{i}]", h, n) for i, (h, n) in enumerate(zip(state, self.sizes, strict=True))]

    def contrast(self, v: Any, state: State) -> None:
        """Fill ``grads`` with ∂/∂θ of the mean E(v, μ) minus the mean E(state), where μ = `mean_field` (v).

        ∂E/∂W_l = −h_{l+1} h_lᵀ, ∂E/∂b_l = −h_l.
        """
        mu = self.mean_field(v)
        for i in range(self.top + 1):
            self.grads[f"bias{i}"][...] = _array.to_numpy(state[i].mean(0) - mu[i].mean(0))
        for i in range(self.top):
            data = mu[i + 1].T @ mu[i] / len(v)
            model = state[i + 1].T @ state[i] / len(state[i])
            self.grads[f"weight{i}"][...] = _array.to_numpy(model - data)

    def start(self, v: Any, key: Key) -> State:
        """v, and hidden units drawn from the bottom-up pass."""
        v, *hidden = self.bottom_up(v)
        return [v, *(sample(p, key.fold_in(i)) for i, p in enumerate(hidden))]

    def reconstruct(self, v: Any) -> Any:
        """P(v = 1 | μ_1)."""
        return self.given(0, self.mean_field(v))

    def upward(self) -> Upward:
        """2 W_l and b_{l+1}, the top's weights once: the pass `bottom_up`, which needs no inference.

        A network made of it begins where mean-field inference begins. The paper instead feeds the posterior
        means of the second layer to the network as more inputs, beside v.
        """
        scale = [2] * (self.top - 1) + [1]
        return [(s * self.params[f"weight{i}"], self.params[f"bias{i + 1}"]) for i, s in enumerate(scale)]
