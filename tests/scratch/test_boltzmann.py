"""Boltzmann machines, judged by adding up all states of small ones."""

from __future__ import annotations

import copy
import doctest
import itertools
import math
from typing import Any

import numpy as np
import pytest
from helpers.by_hand import F64, gamma, numeric_gradient, random, within

from thinned import Key, scratch
from thinned.scratch import DBM, DBN, RBM, SGD, Dropout, Linear, Sequential, boltzmann, mlp
from thinned.scratch.boltzmann import sample

FAILS = 1e-9  # probability that a statistical test of a true statement fails
COPIES = [(1, 1), (2, 1), (1, 2), (2, 2)]


def binary(n: int) -> np.ndarray:
    """All states of n units, (2ⁿ, n)."""
    return np.array(list(itertools.product((0.0, 1.0), repeat=n)))


def spread(machine: Any, scale: float = 1.0) -> Any:
    """Parameters large enough to matter."""
    for name, param in machine.params.items():
        param[...] = scale * random(name, *param.shape)
    return machine


def rbm(n_visible: int = 4, n_hidden: int = 3, copies: tuple[int, int] = (1, 1), **more: Any) -> RBM:
    return spread(RBM(n_visible, n_hidden, key=Key(0), copies=copies, **F64, **more))


def dbm(*sizes: int, scale: float = 1.0, **more: Any) -> DBM:
    return spread(DBM(sizes or (3, 2, 3, 2), key=Key(0), **F64, **more), scale)


def probabilities(energies: np.ndarray) -> np.ndarray:
    p = np.exp(energies.min() - energies)
    return p / p.sum()


def off(n: int, tests: int = 1) -> float:
    """How far the mean of n numbers in [0, 1] is from its expectation at most (Hoeffding 1963)."""
    return math.sqrt(math.log(2 * tests / FAILS) / (2 * n))


def chi_square(states: np.ndarray, p: np.ndarray) -> bool:
    """Whether binary rows can have come from the probabilities p of `binary`."""
    stats = pytest.importorskip("scipy.stats")
    numbers = (states @ 2.0 ** np.arange(states.shape[1])[::-1]).astype(int)
    expected = len(states) * p
    assert expected.min() > 5  # where the chi-square distribution is a fair description
    value = ((np.bincount(numbers, minlength=len(p)) - expected) ** 2 / expected).sum()
    return bool(value < stats.chi2.isf(FAILS, len(p) - 1))


def drawn(p: np.ndarray, n: int) -> np.ndarray:
    """n exact samples of `binary` states."""
    states = binary(int(math.log2(len(p))))
    return states[np.random.default_rng(5).choice(len(p), n, p=p)]


# --- sampling ---


def test_samples_have_the_probabilities_they_were_asked_for():
    n, asked = 20_000, np.array([0.0, 0.001, 0.3, 0.5, 0.97, 1.0])
    for dtype in (np.float32, np.float64):
        p = np.broadcast_to(asked.astype(dtype), (n, 6))
        x = sample(p, Key(3))
        assert x.dtype == dtype
        assert set(np.unique(x)) == {0.0, 1.0}
        within(x.mean(axis=0, dtype=float), asked, np.where(asked % 1 == 0, 0.0, off(n, 6)))
    three = sample(p, Key(3), copies=3)
    assert set(np.unique((3 * three).round(12))) == {0.0, 1.0, 2.0, 3.0}
    within(three.mean(axis=0), asked, np.where(asked % 1 == 0, 0.0, off(3 * n, 6)))
    assert np.array_equal(sample(p, Key(3)), x)
    assert not np.array_equal(sample(p, Key(4)), x)


# --- restricted machines ---


@pytest.mark.parametrize("copies", COPIES)
def test_free_energy_and_conditionals_are_sums_over_all_states(copies):
    machine = rbm(copies=copies)
    m, n = copies
    v_all, h_all = (
        np.array([np.mean(c, axis=0) for c in itertools.product(binary(k), repeat=times)])
        for k, times in ((4, m), (3, n))
    )
    pairs = [np.repeat(v_all, len(h_all), 0), np.tile(h_all, (len(v_all), 1))]
    w, b, c = (machine.params[name] for name in ("weight", "visible", "hidden"))
    energies = machine.energy(*pairs).reshape(len(v_all), len(h_all))
    by_hand = [
        [-m * n * h @ w @ v - m * b @ v - n * c @ h for h in h_all] for v in v_all
    ]  # Σ over all pairs of copies
    assert energies == pytest.approx(np.array(by_hand), rel=1e-12)
    joint = np.exp(-energies)
    assert machine.free_energy(v_all) == pytest.approx(-np.log(joint.sum(axis=1)), rel=1e-12)
    given_v = (joint / joint.sum(axis=1, keepdims=True)) @ h_all
    given_h = (joint / joint.sum(axis=0)).T @ v_all
    assert machine.up(v_all) == pytest.approx(given_v, rel=1e-12)
    assert machine.down(h_all) == pytest.approx(given_h, rel=1e-12)


@pytest.mark.parametrize("copies", COPIES)
def test_contrast_is_the_gradient_of_free_energies(copies):
    machine = rbm(copies=copies)
    v, state = random("v", 5, 4) ** 2 / 9, (random("s", 6, 4) > 0).astype(float)

    def f() -> float:
        return float(machine.free_energy(v).mean() - machine.free_energy(state).mean())

    machine.contrast(v, state)
    size = np.abs(machine.free_energy(v)).mean() + np.abs(machine.free_energy(state)).mean()
    parts = sum(4 * np.abs(p).sum() for p in machine.params.values())  # of sums that cancel
    for name, param in machine.params.items():
        within(machine.grads[name], *numeric_gradient(f, param, gamma(200) * (size + parts)))


def transitions(machine: RBM) -> np.ndarray:
    """P(v → v′) of a Gibbs step, by adding up all h: (16, 16)."""
    v_all, h_all = binary(4), binary(3)
    up, down = machine.up(v_all), machine.down(h_all)
    h_given_v = np.where(h_all[None] == 1, up[:, None], 1 - up[:, None]).prod(-1)
    v_given_h = np.where(v_all[None] == 1, down[:, None], 1 - down[:, None]).prod(-1)
    return h_given_v @ v_given_h


def test_gibbs_steps_as_the_conditionals_say_and_leaves_the_distribution_as_it_is():
    machine, n = rbm(), 40_000
    p, step = probabilities(machine.free_energy(binary(4))), transitions(machine)
    assert p @ step == pytest.approx(p, rel=1e-12)
    assert chi_square(machine.gibbs(drawn(p, n), Key(1)), p)
    assert chi_square(machine.gibbs(drawn(p, n), Key(2), steps=3), p)
    first = np.tile(binary(4)[5], (n, 1))
    assert chi_square(machine.gibbs(first, Key(3)), step[5])
    assert not chi_square(machine.gibbs(first, Key(3)), p)  # one step does not forget where it began
    assert chi_square(machine.gibbs(first, Key(4), steps=2), (step @ step)[5])


def test_long_chains_give_the_gradient_of_the_likelihood():
    machine, n, k = rbm(), 40_000, 60
    v_all = binary(4)
    p, step = probabilities(machine.free_energy(v_all)), transitions(machine)
    data = v_all[[5, 6, 15]]

    def minus_log_likelihood() -> float:
        free = machine.free_energy(v_all)
        log_z = float(np.log(np.exp(free.min() - free).sum()) - free.min())
        return float(machine.free_energy(data).mean()) + log_z

    exact = {
        name: numeric_gradient(minus_log_likelihood, param, gamma(1000) * 100)
        for name, param in machine.params.items()
    }
    chains = machine.gibbs(np.tile(data, (n // 3, 1)), Key(1), steps=k)
    machine.contrast(data, chains)
    begun = np.bincount([5, 6, 15], minlength=16) / 3
    gap = np.abs(begun @ np.linalg.matrix_power(step, k) - p).sum() / 2  # of chains of k steps, in variation
    assert gap < 1e-3
    count = sum(param.size for param in machine.params.values())
    for name, (gradient, error) in exact.items():
        within(machine.grads[name], gradient, error + off(len(chains), count) + gap)
    machine.contrast(data, machine.gibbs(np.tile(data, (n // 3, 1)), Key(1)))
    short = np.abs(machine.grads["weight"] - exact["weight"][0]).max()
    assert short > off(len(chains), count)  # CD-1 is biased: the test above can tell


def bars() -> np.ndarray:
    """Whole rows of a 3 × 3 grid, or whole columns: 14 pictures of 512."""
    rows = [np.repeat(row, 3) for row in binary(3)]
    columns = [np.tile(column, 3) for column in binary(3)]
    return np.unique(np.array(rows + columns), axis=0)


def log_likelihood(machine: RBM, x: np.ndarray) -> float:
    free = machine.free_energy(binary(machine.n_visible))
    log_z = np.log(np.exp(free.min() - free).sum()) - free.min()
    return float(-machine.free_energy(x).mean() - log_z)


def test_the_likelihood_rises_along_the_exact_gradient():
    machine, x = RBM(9, 8, key=Key(0), **F64), bars()
    optimizer, values = SGD(0.1), [log_likelihood(machine, x)]
    v_all = binary(9)
    for _ in range(60):
        p = probabilities(machine.free_energy(v_all))
        h = machine.up(v_all)
        machine.contrast(x, v_all)  # all states count alike: weigh them
        machine.grads["weight"] += (p[:, None] * h).T @ v_all - h.T @ v_all / len(p)
        machine.grads["visible"] += p @ v_all - v_all.mean(0)
        machine.grads["hidden"] += p @ h - h.mean(0)
        optimizer.step(machine)
        values.append(log_likelihood(machine, x))
    assert (np.diff(values) > 0).all()


@pytest.mark.parametrize("persistent", [False, True])
def test_contrastive_divergence_learns_bars(persistent):
    x = bars()
    machine = RBM(9, 12, key=Key(0))
    how: dict[str, Any] = {"epochs": 1500, "batch": 14, "lr": 0.1, "k": 3}
    calls: list[tuple[int, float]] = []
    errors = machine.fit(
        x, key=Key(1), persistent=persistent, tell=lambda epoch, error: calls.append((epoch, error)), **how
    )
    after, best = log_likelihood(machine, x), -math.log(len(x))  # the entropy of 14 pictures
    means = x.mean(axis=0)
    alone = float((means * np.log(means) + (1 - means) * np.log(1 - means)).sum())  # independent pixels
    assert after < best
    assert after > (alone + best) / 2
    assert calls == list(enumerate(errors, 1))
    assert errors[-1] < errors[0]


def test_training_is_the_key_alone():
    x = bars()
    one, two, other = (RBM(9, 4, key=Key(0), **F64) for _ in range(3))
    how: dict[str, Any] = {"epochs": 3, "batch": 5, "persistent": True}
    assert one.fit(x, key=Key(1), **how) == two.fit(x, key=Key(1), **how)
    other.fit(x, key=Key(2), **how)
    for name, param in one.params.items():
        assert np.array_equal(param, two.params[name])
        assert not np.array_equal(param, other.params[name])


def test_weights_decay_and_biases_do_not():
    machine = rbm(l2=0.5)
    before = copy.deepcopy(machine.params)
    v = random("v", 5, 4)
    machine.contrast(v, v)  # nothing to learn
    SGD(0.1).step(machine)
    assert machine.params["weight"] == pytest.approx(0.95 * before["weight"])
    assert np.array_equal(machine.params["visible"], before["visible"])
    assert machine.penalty() == pytest.approx(0.25 * (machine.params["weight"] ** 2).sum())


# --- belief networks ---


def test_a_belief_network_learns_layer_by_layer():
    x = bars()
    how: dict[str, Any] = {"epochs": 4, "batch": 7, "lr": 0.2}
    dbn = DBN((9, 6, 5), key=Key(0), l2=1e-3)
    errors = dbn.fit(x, key=Key(1), **how)
    v = x
    for i, (sizes, own) in enumerate(zip(((9, 6), (6, 5)), dbn.rbms, strict=True)):
        alone = RBM(*sizes, key=Key(0).fold_in(i), l2=1e-3)
        assert alone.fit(v, key=Key(1).fold_in(i), **how) == errors[i]
        assert all(np.array_equal(own.params[name], param) for name, param in alone.params.items())
        v = alone.up(v)
    assert np.array_equal(dbn.forward(x), v)
    assert dbn.get_params().keys() == {
        f"{i}.{name}" for i in "01" for name in ("weight", "visible", "hidden")
    }


def test_a_belief_network_samples_its_own_distribution():
    n = 20_000
    dbn = DBN((3, 2, 2), key=Key(0), **F64)
    for machine in dbn.rbms:
        spread(machine)
    h_all = binary(2)
    top = probabilities(dbn.rbms[1].free_energy(h_all))
    within(
        dbn.sample(np.zeros((n, 3)), key=Key(1), steps=40).mean(axis=0),
        top @ dbn.rbms[0].down(h_all),
        off(n, 3),
    )


# --- deep machines ---


def states_of(machine: DBM) -> tuple[list[np.ndarray], np.ndarray]:
    """All states, layer by layer, and their probabilities."""
    every = binary(sum(machine.sizes))
    state = np.split(every, np.cumsum(machine.sizes)[:-1], axis=1)
    return state, probabilities(machine.energy(state))


def test_energy_and_conditionals_of_a_deep_machine():
    machine = dbm()
    state, p = states_of(machine)
    for at in (0, 37, 1023):
        one = [h[at] for h in state]
        by_hand = -sum(h @ machine.params[f"bias{i}"] for i, h in enumerate(one))
        by_hand -= sum(
            b @ machine.params[f"weight{i}"] @ a for i, (a, b) in enumerate(itertools.pairwise(one))
        )
        assert machine.energy(state)[at] == pytest.approx(by_hand, rel=1e-12)
    for i in range(4):
        others = np.delete(np.arange(4), i)
        rest = np.hstack([state[j] for j in others])
        _, which = np.unique(rest, axis=0, return_inverse=True)
        mass = np.bincount(which, p)
        for unit in range(machine.sizes[i]):
            exact = np.bincount(which, p * state[i][:, unit]) / mass
            assert machine.given(i, state)[:, unit] == pytest.approx(exact[which], rel=1e-9)


def test_mean_field_raises_its_bound_up_to_the_likelihood():
    machine, v = dbm(scale=1.5), binary(3)
    state, p = states_of(machine)
    energies = machine.energy(state)
    log_z = np.log(np.exp(energies.min() - energies).sum()) - energies.min()
    bounds = []
    for iterations in range(1, 31):
        machine.iterations = iterations
        bounds.append(machine.bound(machine.mean_field(v)))
    rounding = gamma(100) * 100
    assert (np.diff(bounds, axis=0) >= -rounding).all()
    assert (bounds[-1] > bounds[0] + 1e-3).any()
    # the bound is below ln P(v) + ln Z by the divergence of q from the posterior
    mu = machine.mean_field(v)
    numbers = (state[0] @ [4, 2, 1]).astype(int)
    for i in range(len(v)):
        here = numbers == i
        posterior = p[here] / p[here].sum()
        factors = [
            np.where(h[here] == 1, m[i], 1 - m[i]).prod(-1) for h, m in zip(state[1:], mu[1:], strict=True)
        ]
        q = np.prod(factors, axis=0)
        divergence = float((q * np.log(q / posterior)).sum())
        assert divergence > 0
        assert bounds[-1][i] + divergence == pytest.approx(math.log(p[here].sum()) + log_z, rel=1e-9)
    assert np.isfinite(machine.bound([v, *(h[:8] for h in state[1:])])).all()  # 0·ln 0 = 0


def test_a_deep_machine_of_one_hidden_layer_is_a_restricted_one():
    one, two = rbm(), dbm(4, 3)
    for mine, theirs in (("weight0", "weight"), ("bias0", "visible"), ("bias1", "hidden")):
        two.params[mine][...] = one.params[theirs]
    v = random("v", 5, 4) ** 2 / 9
    chains = (random("s", 6, 4) > 0).astype(float)
    state = [chains, one.up(chains)]
    assert two.mean_field(v)[1] == pytest.approx(one.up(v), rel=1e-12)
    assert two.bound(two.mean_field(v)) == pytest.approx(-one.free_energy(v), rel=1e-12)
    one.contrast(v, chains)
    two.contrast(v, state)
    assert two.grads["weight0"] == pytest.approx(one.grads["weight"], abs=1e-12)
    assert two.grads["bias0"] == pytest.approx(one.grads["visible"], abs=1e-12)
    assert two.grads["bias1"] == pytest.approx(one.grads["hidden"], abs=1e-12)


def test_contrast_of_a_deep_machine_is_the_gradient_of_its_bound():
    machine = dbm()
    v, state = random("v", 5, 3) ** 2 / 9, [(random(n, 6, n) > 0).astype(float) for n in (3, 2, 3, 2)]
    mu = machine.mean_field(v)
    machine.contrast(v, state)

    def f() -> float:
        return float(machine.energy(mu).mean() - machine.energy(state).mean())

    parts = sum(np.abs(p).sum() for p in machine.params.values())
    for name, param in machine.params.items():
        within(machine.grads[name], *numeric_gradient(f, param, 2 * gamma(200) * parts))


def test_gibbs_leaves_the_distribution_of_a_deep_machine_as_it_is():
    machine, n = dbm(2, 2, 1, 1, scale=0.7), 60_000
    _, p = states_of(machine)
    layers = np.cumsum(machine.sizes)[:-1]
    after = machine.gibbs(np.split(drawn(p, n), layers, axis=1), Key(1))
    assert chi_square(np.hstack(after), p)
    wrong = spread(DBM((2, 2, 1, 1), key=Key(0), **F64), 0.6)
    assert not chi_square(np.hstack(wrong.gibbs(after, Key(2))), p)


def test_a_deep_machine_is_the_average_of_what_was_pretrained():
    x, how = bars(), {"epochs": 5, "batch": 7}
    machine = DBM((9, 6, 5, 4), key=Key(0), **F64)
    errors = machine.pretrain(x, key=Key(1), lr=0.8, **how)
    v, stack = x, []
    for i, (copies, lr) in enumerate([((2, 1), 0.2), ((2, 2), 0.1), ((1, 2), 0.2)]):
        key = Key(1).fold_in(i)
        stack.append(RBM(*machine.sizes[i : i + 2], key=key.fold_in("init"), copies=copies, **F64))
        assert stack[-1].fit(v, key=key, lr=lr, **how) == errors[i]
        v = stack[-1].up(v)
    state = [sample(np.full((3, n), 0.5), Key(n)) for n in machine.sizes]

    def logit(p: np.ndarray) -> np.ndarray:
        return np.log(p / (1 - p))

    for i in (1, 2):
        below, above = logit(stack[i - 1].up(state[i - 1])), logit(stack[i].down(state[i + 1]))
        assert logit(machine.given(i, state)) == pytest.approx((below + above) / 2, abs=1e-9)
    assert machine.given(0, state) == pytest.approx(stack[0].down(state[1]))
    assert machine.given(3, state) == pytest.approx(stack[2].up(state[2]))


def test_deep_training_raises_the_likelihood():
    x = bars()

    def likelihood(machine: DBM) -> float:
        every, p = states_of(machine)
        numbers = (every[0] @ 2.0 ** np.arange(9)[::-1]).astype(int)
        mass = np.bincount(numbers, p, minlength=512)
        return float(np.log(mass[(x @ 2.0 ** np.arange(9)[::-1]).astype(int)]).mean())

    machine = DBM((9, 5, 3), key=Key(0))
    machine.pretrain(x, key=Key(1), epochs=200, batch=14, lr=0.05)
    pretrained = likelihood(machine)
    machine.fit(x, key=Key(2), epochs=600, batch=14, lr=0.05, k=3)
    means = x.mean(axis=0)
    alone = float((means * np.log(means) + (1 - means) * np.log(1 - means)).sum())
    assert likelihood(machine) > max(pretrained, alone)


# --- networks that begin with a machine ---


def trained(kind: str) -> Any:
    """A machine with parameters that matter."""
    if kind == "dbm":
        return dbm(5, 4, 3)
    machine = DBN((5, 4, 3), key=Key(0), **F64)
    for one in machine.rbms:
        spread(one)
    return machine


@pytest.mark.parametrize("kind", ["dbn", "dbm"])
@pytest.mark.parametrize("rescale", ["train", "test"])
def test_dropout_leaves_the_expected_inputs_as_they_were_pretrained(kind, rescale):
    n, p, input_p = 200_000, 0.5, 0.2
    machine = trained(kind)
    net = machine.to_mlp(2, key=Key(1), drop=lambda p: Dropout(p, rescale), p=p, input_p=input_p, **F64)
    drop0, first, act, drop1, second = list(net.children.values())[:5]
    x = np.array([[1.0, 0.0, 0.5, 1.0, 0.3]])
    pairs = machine.upward()
    for (drop, layer), (weight, bias), rate in zip(
        ((drop0, first), (drop1, second)), pairs, (input_p, p), strict=True
    ):
        wanted = x @ weight.T + bias
        # each term of the mean lies in [0, w·x/q] or [w·x/q, 0]
        spans = np.sum(np.abs(x * weight / (1 - rate)), axis=1)
        came = layer.forward(drop.forward(np.tile(x, (n, 1)), Key(2))).mean(axis=0)
        bound = spans * off(n, weight.shape[0])
        within(came, wanted[0], bound)
        assert layer.forward(drop.forward(x)) == pytest.approx(wanted)  # and evaluation's are the same
        assert (
            np.abs(wanted[0] - bias) / (1 - rate) - np.abs(wanted[0] - bias) > bound
        ).any()  # dividing twice
        x = act.forward(wanted)


@pytest.mark.parametrize("kind", ["dbn", "dbm"])
def test_a_network_begins_as_the_bottom_up_pass(kind):
    machine, x = trained(kind), binary(5)
    hidden = machine.forward(x) if kind == "dbn" else machine.bottom_up(x)[-1]
    net = machine.to_mlp(10, key=Key(1), drop=None, **F64)
    for layer in list(net.children.values())[:-1]:
        x = layer.forward(x)
    assert x == pytest.approx(hidden, rel=1e-12)
    same = mlp((5, 4, 3, 10), key=Key(1), drop=None, activation="sigmoid", **F64)
    last = list(same.children)[-1]
    assert np.array_equal(net.get_params()[f"{last}.weight"], same.get_params()[f"{last}.weight"])
    with pytest.raises(ValueError, match=r"5-4-3.* got 5-4-2-10"):
        machine.initialise(mlp((5, 4, 2, 10), key=Key(1), drop=None))
    with pytest.raises(ValueError, match="got none"):
        machine.initialise(Sequential(Dropout(0.5)))
    with pytest.raises(TypeError, match="net must be"):
        machine.initialise(Linear(5, 4, key=Key(0)))


# --- torch ---


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_tensors_take_the_same_path(torch, dtype):
    x = bars().astype(dtype)
    tensor = torch.from_numpy(x)
    p = np.linspace(0, 1, 300, dtype=dtype).reshape(20, 15)
    assert np.array_equal(sample(torch.from_numpy(p), Key(1)).numpy(), sample(p, Key(1)))
    near = {"rel": 1e-4 if dtype == "float32" else 1e-9, "abs": 1e-5 if dtype == "float32" else 1e-12}
    hand, engine = (DBM((9, 6, 4), key=Key(0), dtype=dtype) for _ in range(2))
    for machine, data in ((hand, x), (engine, tensor)):
        machine.pretrain(data, key=Key(1), epochs=3, batch=5)
        machine.fit(data, key=Key(2), epochs=3, batch=5)
    for name, param in hand.params.items():
        assert engine.params[name] == pytest.approx(param, **near)
    state = hand.mean_field(x)
    ours, theirs = hand.bound(state), hand.bound([torch.from_numpy(h) for h in state])
    assert isinstance(theirs, torch.Tensor)
    assert theirs.numpy() == pytest.approx(ours, **near)
    one = RBM(9, 4, key=Key(0), dtype=dtype)
    for ours, theirs in ((one.free_energy(x), one.free_energy(tensor)), (one.up(x), one.forward(tensor))):
        assert theirs.dtype == tensor.dtype
        assert theirs.numpy() == pytest.approx(ours, **near)


# --- what newcomers do ---


def test_errors_say_what_came():
    machine, x = rbm(), bars()
    cases: list[tuple[type[Exception], str, Any]] = [
        (ValueError, r"x must be in \[0, 1\].*got 0 … 255.*rescale", lambda: fit(255 * x)),
        (ValueError, "got nan", lambda: fit(np.full((3, 9), math.nan))),
        (ValueError, r"x must have shape \(N, 9\).*got \(14, 3, 3\)", lambda: fit(x.reshape(14, 3, 3))),
        (ValueError, "at least one example", lambda: fit(x[:0])),
        (TypeError, "x must hold floating-point numbers, got dtype int64", lambda: fit(x.astype(int))),
        (TypeError, "x must be a NumPy array or a torch tensor, got list", lambda: fit(x.tolist())),
        (TypeError, "key must be a thinned.Key", lambda: RBM(9, 4, key=Key(0)).fit(x, key=1)),
        (ValueError, "lr must be finite and greater than 0", lambda: fit(x, lr=0)),
        (ValueError, "k must be at least 1", lambda: fit(x, k=0)),
        (ValueError, r"h must have shape \(N, 3\)", lambda: machine.down(np.zeros((2, 4)))),
        (ValueError, r"v must have shape \(N, 4\)", lambda: machine.free_energy(np.zeros((2, 3)))),
        (ValueError, "n_hidden must be at least 1", lambda: RBM(9, 0, key=Key(0))),
        (ValueError, r"sizes must be \(n_visible, \*hidden\), got \(9,\)", lambda: DBN((9,), key=Key(0))),
        (ValueError, "copies", lambda: RBM(9, 4, key=Key(0), copies=(1,))),
        (TypeError, "key must be a thinned.Key", lambda: DBM((9, 4), key=0)),
        (TypeError, "key must be a thinned.Key", lambda: machine.gibbs(np.zeros((2, 4)), 3)),
        (ValueError, "state must be a list of 4 arrays.*got ndarray", lambda: dbm().gibbs(x, Key(0))),
        (ValueError, "got 2 of them", lambda: dbm().bound(dbm(3, 2).mean_field(np.zeros((2, 3))))),
        (ValueError, r"state\[1\] must have shape \(N, 2\)", lambda: dbm().energy([x[:, :3]] * 4)),
        (NotImplementedError, "to_mlp", lambda: machine.backward(np.zeros((2, 3)))),
        (FloatingPointError, r"after epoch \d; lower lr", lambda: fit(x, lr=1e30)),
    ]  # fmt: skip

    def fit(data: Any, **how: Any) -> None:
        with np.errstate(all="ignore"):
            RBM(9, 4, key=Key(0), l2=1.0).fit(data, key=Key(1), **how)

    for kind, message, call in cases:
        with pytest.raises(kind, match=message):
            call()


def test_parameters_go_to_disk_and_back(tmp_path):
    machine, other = rbm(), RBM(4, 3, key=Key(1), **F64)
    scratch.save_params(tmp_path / "rbm.npz", machine.params)
    for name, param in scratch.load_params(tmp_path / "rbm.npz").items():
        other.params[name][...] = param
    assert np.array_equal(other.up(binary(4)), machine.up(binary(4)))


def test_docstrings_run():
    result = doctest.testmod(boltzmann)
    assert result.attempted > 0
    assert result.failed == 0
