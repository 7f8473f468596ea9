"""A step of training (forward, loss, backward, update), thinned, against the dense steps; a part of a run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn

import thinned.nn as tnn
from thinned import Key, scratch
from thinned.lab.bench.harness.measure import Case
from thinned.lab.data.dataset import Dataset
from thinned.lab.training.config import Config
from thinned.lab.training.trainer import Trainer

P, RATE, MOMENTUM, L2 = 0.5, 1e-3, 0.9, 1e-4
SIZES, BATCH = (3072, 2000, 800, 40), 256
CHANNELS, SIDE, IMAGES = (64, 128, 128), 32, 32

# By hand: sizes, batch, weight decay, bound on the norm of a unit's weights; that of the goals, and MNIST's.
BY_HAND = ((SIZES, BATCH, L2, None), ((784, 1024, 1024, 10), 128, 0.0, 3.5))
TRAINED, TESTED = 12_000, 2_000  # rows; `compare` tests on as many training rows: the shares of MNIST

Rule = Callable[..., torch.optim.Optimizer]  # of parameters
Build = Callable[[float], nn.Module]  # of a rate; with 0 there is no dropout


def cases(threads: int) -> Iterator[Case]:
    """Perceptrons with each optimizer, against the dense steps; convolutions; by hand."""
    goals = {"no dropout": 0.42, "torch's dropout": 0.38, "thinned, one pick": 1.1}
    yield of_perceptron(SIZES, BATCH, "SGD", goals, threads, descent(tnn.SGD))
    yield of_perceptron(SIZES, BATCH, "SGD, torch's for both", {"no dropout": 0.55}, threads)
    adam = partial(tnn.AdamW, lr=RATE), partial(torch.optim.AdamW, lr=RATE)
    yield of_perceptron(SIZES, BATCH, "AdamW", {"no dropout": 0.45}, threads, *adam)
    sizes, rows = BY_HAND[1][:2]
    goals = {"no dropout": 0.5, "thinned, one pick": 1.1}
    yield of_perceptron(sizes, rows, "SGD", goals, threads, descent(tnn.SGD))
    name, shape = "-".join(map(str, CHANNELS)) + " channels, 3 × 3", (IMAGES, CHANNELS[0], SIDE, SIDE)
    goals, rules = {"no dropout": 0.4}, (descent(tnn.SGD), descent(torch.optim.SGD))
    yield case(f"{name}, SGD", convolutions, shape, CHANNELS[-1], goals, threads, *rules)
    for sizes, rows, l2, max_norm in BY_HAND:
        yield by_hand(sizes, rows, l2, max_norm, threads)
    yield of_a_run(*BY_HAND[1], threads)


def descent(kind: type[torch.optim.SGD]) -> Rule:
    """Gradient descent with momentum and L2."""
    return partial(kind, lr=RATE, momentum=MOMENTUM, weight_decay=L2)


TORCHS = descent(torch.optim.SGD)


def of_perceptron(
    sizes: tuple[int, ...],
    rows: int,
    optimizer: str,
    goals: dict[str, float],
    threads: int,
    ours: Rule = TORCHS,
    theirs: Rule = TORCHS,
) -> Case:
    """A perceptron with dropout after each hidden layer."""
    name = f"{'-'.join(map(str, sizes))}, {optimizer}"
    return case(
        name, lambda p: perceptron(p, sizes), (rows, sizes[0]), sizes[-1], goals, threads, ours, theirs
    )


def case(
    name: str,
    build: Build,
    shape: tuple[int, ...],
    classes: int,
    goals: dict[str, float],
    threads: int,
    ours: Rule,
    theirs: Rule,
) -> Case:
    """One network on one batch of random data."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    labels = torch.randint(classes, shape[:1], generator=generator)
    torch.manual_seed(0)
    works = {
        "thinned": step(tnn.thin(build(P)), x, labels, ours),
        "thinned, one pick": step(tnn.thin(build(P), groups=1), x, labels, ours),
        "no dropout": step(build(0.0), x, labels, theirs),
        "torch's dropout": step(build(P), x, labels, theirs),
        "no dropout, our optimizer": step(build(0.0), x, labels, ours),
    }
    row = f"{name}, batch {' × '.join(map(str, shape))}"
    return Case(f"a step of training in torch, p = {P:g}", row, "thinned", works, goals, threads)


def perceptron(p: float, sizes: tuple[int, ...]) -> nn.Module:
    """(N, first) -> (N, last), dropout after the hidden layers."""
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(sizes[:-1]):
        layers += [nn.Linear(n_in, n_out), nn.ReLU(), *dropout(nn.Dropout, p)]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def convolutions(p: float) -> nn.Module:
    """(N, 64, *) -> (N, 128): a block of VGG, dropout of both layers' channels, a reader of their means."""
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(CHANNELS):
        convolution = nn.Conv2d(n_in, n_out, 3, padding=1)
        layers += [convolution, nn.BatchNorm2d(n_out), nn.ReLU(), *dropout(nn.Dropout2d, p)]
    reader = nn.Linear(CHANNELS[-1], CHANNELS[-1])
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), reader)


def dropout(kind: type[nn.Module], p: float) -> list[nn.Module]:
    """A dropout module, if there is one."""
    return [kind(p)] if p else []


def step(model: nn.Module, x: Tensor, labels: Tensor, optimizer: Rule) -> Callable[[], object]:
    """One step."""
    rule = optimizer(model.parameters())

    def work() -> None:
        rule.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        rule.step()

    return work


def by_hand(sizes: tuple[int, ...], rows: int, l2: float, max_norm: float | None, threads: int) -> Case:
    """A network by hand on one batch; where its norms are free, beside torch's thinned step, too."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, sizes[0]), dtype=np.float32)
    y = rng.integers(0, sizes[-1], rows)
    works = {
        "thinned": step_by_hand(sizes, x, y, l2, max_norm, threads, scratch.Dropout, groups="auto"),
        "thinned, one pick": step_by_hand(sizes, x, y, l2, max_norm, threads, scratch.Dropout, groups=1),
        "no dropout": step_by_hand(sizes, x, y, l2, max_norm, threads, None),
        "dropout": step_by_hand(sizes, x, y, l2, max_norm, threads, scratch.Dropout),
    }
    goals = {}
    if max_norm is None:
        model = tnn.thin(perceptron(P, sizes))
        works["torch, thinned"] = step(model, torch.from_numpy(x), torch.from_numpy(y), descent(tnn.SGD))
        goals = {"no dropout": 0.5, "torch, thinned": 1.0}
    name = f"{'-'.join(map(str, sizes))}, batch {rows}"
    return Case(f"a step of training in NumPy, p = {P:g}", name, "thinned", works, goals, threads)


def step_by_hand(
    sizes: tuple[int, ...],
    x: np.ndarray,
    y: np.ndarray,
    l2: float,
    max_norm: float | None,
    threads: int,
    drop: Callable[[float], scratch.Layer] | None,
    groups: int | str = 0,
) -> Callable[[], object]:
    """A step of a network of `scratch.mlp`, thinned in so many groups; so many threads multiply matrices."""
    net: scratch.Network = scratch.mlp(sizes, key=Key(0), drop=drop, l2=l2, max_norm=max_norm)
    net = scratch.Thin(net, groups) if groups else net
    optimizer, loss = scratch.SGD(RATE, momentum=MOMENTUM), scratch.SoftmaxCrossEntropy()
    products, key = ThreadpoolController(), Key(1)

    def step() -> None:
        with products.limit(limits=threads, user_api="blas"):
            loss.forward(net.forward(x, key.fold_in(optimizer.t)), y)
            net.param_grads(loss.backward())
            optimizer.step(net)

    return step


def of_a_run(sizes: tuple[int, ...], rows: int, l2: float, max_norm: float | None, threads: int) -> Case:
    """An epoch of `thinned compare` and the tests after it, on a fifth of MNIST's rows."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((TRAINED + TESTED, sizes[0]), dtype=np.float32)
    y = rng.integers(0, sizes[-1], len(x))
    parts = x[TESTED:], y[TESTED:], x[:TESTED], y[:TESTED]
    data = Dataset("random rows", *parts, tuple(map(str, range(sizes[-1]))), sizes[:1], "")
    settings: dict[str, Any] = {"hidden": sizes[1:-1], "batch": rows, "l2": l2, "max_norm": max_norm}
    settings |= {"data": data.name, "fingerprint": "", "lr": RATE, "schedule": "constant"}
    works = {
        label: epoch(Config(method=method, **settings), data, threads)
        for label, method in (("thinned", "thin"), ("no dropout", "none"), ("dropout", "dropout"))
    }
    group = f"an epoch of {TRAINED:,} rows and its tests in NumPy, p = {P:g}"
    name = f"{'-'.join(map(str, sizes))}, batch {rows}"
    return Case(group, name, "thinned", works, {"no dropout": 0.48}, threads)


def epoch(config: Config, data: Dataset, threads: int) -> Callable[[], object]:
    """An epoch of training and its tests."""
    trainer, products = Trainer(config, data), ThreadpoolController()
    trainer.part = trainer.part[:TESTED]

    def work() -> None:
        with products.limit(limits=threads, user_api="blas"):
            trainer.next_epoch(lambda done, loss: None)

    return work
