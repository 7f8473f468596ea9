"""Predictions with error bars against as many forward passes of torch in training mode."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn

import thinned.nn as tnn
from thinned import Key, scratch, uncertainty
from thinned.lab.bench.harness.measure import Case
from thinned.lab.bench.thin import P, perceptron
from thinned.lab.data.dataset import Dataset
from thinned.lab.data.registry import load
from thinned.lab.errors import LabError

SAMPLES, SIZES, IMAGES = 100, (784, 1024, 1024, 10), 1000
CHANNELS, SIDE, PHOTOS = (3, 32, 64, 64), 32, 200
QUANTILES = (0.05, 0.5, 0.95)
FEW = 2  # rounds: a call takes many seconds
DATA, LIMIT = ("mnist", "cifar10"), 10_000
HIDDEN, EPOCHS, BATCH, SEEDS = (512, 512), 50, 128, 3  # of what is trained
MANY, TESTED = 1000, 500  # samples and test images of the nearness
NEAR = 0.02
MONTE_CARLO, SCALED, MOMENTS = "Monte-Carlo", "weight scaling", "moments"


def cases(threads: int) -> Iterator[Case]:
    """A perceptron, a convolutional net, one by hand; moments, and how near they are; calibration."""
    torch.manual_seed(0)
    name = f"{'-'.join(map(str, SIZES))}, {IMAGES} images"
    group = f"{SAMPLES} samples, mean, spread, entropies and quantiles, p = {P:g}"
    goals = {"torch, training mode": 10.0}
    x = torch.randn(IMAGES, SIZES[0])
    yield sampling(group, name, perceptron(P, SIZES), x, goals, threads, {"its products alone": products()})
    name = f"{'-'.join(map(str, CHANNELS))} channels, {PHOTOS} photos"
    x = torch.randn(PHOTOS, CHANNELS[0], SIDE, SIDE)
    yield sampling(group, name, convolutions(), x, {"torch, training mode": 20.0}, threads)
    yield one_pass(threads)
    if threads == 1:
        yield by_hand(threads)
        yield from judged()


def sampling(
    group: str, name: str, model: nn.Module, x: Tensor, goals: dict[str, float], threads: int,
    more: dict[str, Callable[[], object]] | None = None,
) -> Case:  # fmt: skip
    """A model's samples."""
    works: dict[str, Callable[[], object]] = {
        "thinned": lambda: uncertainty.predict(model, x, SAMPLES, key=Key(0), quantiles=QUANTILES),
        "masks for each row": lambda: uncertainty.predict(
            model, x, SAMPLES, key=Key(0), quantiles=QUANTILES, thin=False
        ),
        "torch, training mode": lambda: passes(model, x),
        **(more or {}),
    }
    return Case(group, name, "thinned", works, {k: 1.0 / v for k, v in goals.items()}, threads, few=FEW)


def products() -> Callable[[], object]:
    """Only the products of the perceptron's samples behind the first layer, by torch."""
    k = [*(round((1 - P) * n) for n in SIZES[1:-1]), SIZES[-1]]
    pairs = [(torch.randn(IMAGES, a), torch.randn(a, b)) for a, b in itertools.pairwise(k)]

    def work() -> None:
        for _ in range(SAMPLES):
            for x, w in pairs:
                torch.mm(x, w)

    return work


@torch.no_grad()
def passes(model: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """The statistics of `predict` from forward passes in training mode, the plain way."""
    model.train()
    p = torch.stack([model(x) for _ in range(SAMPLES)]).softmax(-1)
    model.eval()
    mean = p.mean(0)
    entropy = torch.special.entr(mean).sum(-1)
    mutual = entropy - torch.special.entr(p).sum(-1).mean(0)
    return mean, p.std(0), entropy, mutual, torch.quantile(p, torch.tensor(QUANTILES), 0)


def convolutions() -> nn.Module:
    """(N, 3, *) -> (N, 10): three convolutions, and dropout before each of the last two layers."""
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(CHANNELS):
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    features = CHANNELS[-1] * (SIDE // 2 ** (len(CHANNELS) - 1)) ** 2
    head = [nn.Dropout(P), nn.Linear(features, 256), nn.ReLU(), nn.Dropout(P), nn.Linear(256, SIZES[-1])]
    return nn.Sequential(*layers, nn.Flatten(), *head)


def by_hand(threads: int) -> Case:
    """The perceptron in NumPy, against as many of its own training passes."""
    net = scratch.mlp(SIZES, key=Key(0), drop=scratch.Dropout, p=P)
    x = np.random.default_rng(0).standard_normal((IMAGES, SIZES[0]), dtype=np.float32)
    products = ThreadpoolController()

    def limited(work: Callable[[], object]) -> Callable[[], object]:
        def run() -> object:
            with products.limit(limits=threads, user_api="blas"):
                return work()

        return run

    works = {
        "thinned": limited(lambda: uncertainty.predict(net, x, SAMPLES, key=Key(0), quantiles=())),
        "training passes": limited(
            lambda: [net.forward(x, Key(s)) for s in range(SAMPLES)],
        ),
    }
    name = f"{'-'.join(map(str, SIZES))}, {IMAGES} images"
    return Case(f"{SAMPLES} samples in NumPy, p = {P:g}", name, "thinned", works, {}, threads, few=FEW)


def one_pass(threads: int) -> Case:
    """Mean and variance through the layers, against one pass of evaluation."""
    model, x = perceptron(P, SIZES).eval(), torch.randn(IMAGES, SIZES[0])
    works = {
        "moments": lambda: uncertainty.moments(model, x, quantiles=()),
        "one forward pass": torch.no_grad()(lambda: model(x)),
    }
    name = f"{'-'.join(map(str, SIZES))}, {IMAGES} images"
    return Case("moments, in one pass", name, "moments", works, {"one forward pass": 3.0}, threads)


def judged() -> Iterator[Case]:
    """Cases that are not timed, on each data set that is here or can be downloaded, else on 8 × 8 digits."""
    there = []
    for name in DATA:
        with suppress(LabError):
            there.append(load(name, limit=LIMIT))
    for i, images in enumerate(there or [load("digits", limit=LIMIT)]):
        if i == 0:
            yield nearness(images)
        yield calibration(images)


def nearness(images: Dataset) -> Case:
    """The distance of a trained network's mean probabilities from those of many samples, in three ways."""
    x = torch.from_numpy(images.x_test[:TESTED])

    @lru_cache(1)
    def sampled() -> Tensor:
        return mean(trained(images, 0), x, MONTE_CARLO, MANY, 1)

    def distance(way: str) -> float:
        return float((mean(trained(images, 0), x, way, MANY, 2) - sampled()).abs().mean())

    works: dict[str, Callable[[], object]] = {
        MOMENTS: lambda: distance(MOMENTS),
        SCALED: lambda: distance(SCALED),
        "as many other samples": lambda: distance(MONTE_CARLO),
        "the goal": lambda: NEAR,
    }
    group = f"distance from the mean probabilities of {MANY} samples: the mean over images and classes"
    name = f"{len(x)} test images of {images.name}, {network(images)}"
    return Case(group, name, MOMENTS, works, {"the goal": 1.0}, unit="probability")


def calibration(images: Dataset) -> Case:
    """The calibration error of trained networks' probabilities, in three ways."""
    x = torch.from_numpy(images.x_test)

    def error(way: str) -> float:
        probabilities = [mean(trained(images, seed), x, way, SAMPLES, 1) for seed in range(SEEDS)]
        return 100.0 * float(
            np.mean([uncertainty.calibration_error(p, images.y_test) for p in probabilities])
        )

    works = {way: lambda way=way: error(way) for way in (MONTE_CARLO, SCALED, MOMENTS)}
    group = f"calibration error of {SAMPLES} samples, mean of {SEEDS} trainings"
    name = f"{len(x)} test images of {images.name}, {network(images)}"
    return Case(group, name, MONTE_CARLO, works, {SCALED: 1.0}, unit="%")


def mean(model: nn.Module, x: Tensor, way: str, samples: int, seed: int) -> Tensor:
    """Mean probabilities, in one of three ways."""
    if way == MOMENTS:
        found = uncertainty.moments(model, x, quantiles=()).mean
    elif way == SCALED:
        found = uncertainty.weight_scaling(model, x)
    else:
        found = uncertainty.predict(model, x, samples, key=Key(seed), quantiles=()).mean
    return torch.as_tensor(found)


def network(images: Dataset) -> str:
    """The trained network, in words."""
    sizes = "-".join(map(str, (images.x_train.shape[1], *HIDDEN, SIZES[-1])))
    return f"{sizes}, {EPOCHS} epochs of {len(images.x_train):,}"


@lru_cache(SEEDS)
def trained(images: Dataset, seed: int) -> nn.Module:
    """A perceptron after thinned training by Adam, its rate falling to 0."""
    torch.manual_seed(seed)
    model = tnn.thin(perceptron(P, (images.x_train.shape[1], *HIDDEN, SIZES[-1])))
    x, labels = torch.from_numpy(images.x_train), torch.from_numpy(images.y_train)
    rule = tnn.Adam(model.parameters())
    steps = EPOCHS * math.ceil(len(x) / BATCH)
    rates = torch.optim.lr_scheduler.LinearLR(rule, 1.0, 0.0, steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            rule.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), labels[rows]).backward()
            rule.step()
            rates.step()
    return tnn.thin(model, back=True).eval()
