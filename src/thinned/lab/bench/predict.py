"""Predictions with error bars against as many forward passes of torch in training mode."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn

import thinned.nn as tnn
from thinned import Key, scratch, uncertainty
from thinned.lab import data
from thinned.lab.bench.measure import Case
from thinned.lab.bench.thin import P, perceptron
from thinned.lab.errors import LabError

SAMPLES, SIZES, IMAGES = 100, (784, 1024, 1024, 10), 1000
CHANNELS, SIDE, PHOTOS = (3, 32, 64, 64), 32, 200
QUANTILES = (0.05, 0.5, 0.95)
NAME, MANY, EPOCHS, BATCH, LIMIT = "mnist", 1000, 2, 128, None  # digits of which nearness is told
TESTED = 2000  # of their test images
NEAR = 0.02


def cases(threads: int) -> Iterator[Case]:
    """A perceptron, a convolutional net, one by hand; moments; and how near moments are to many samples."""
    torch.manual_seed(0)
    name = f"{'-'.join(map(str, SIZES))}, {IMAGES} images"
    group = f"{SAMPLES} samples, mean, spread, entropies and quantiles, p = {P:g}"
    goals = {"torch, training mode": 10.0}
    x = torch.randn(IMAGES, SIZES[0])
    yield sampling(group, name, perceptron(P, SIZES), x, goals, threads)
    name = f"{'-'.join(map(str, CHANNELS))} channels, {PHOTOS} photos"
    x = torch.randn(PHOTOS, CHANNELS[0], SIDE, SIDE)
    yield sampling(group, name, convolutions(), x, {"torch, training mode": 20.0}, threads)
    yield by_hand(threads)
    yield one_pass(threads)
    if threads == 1:
        yield accuracy()


def sampling(
    group: str, name: str, model: nn.Module, x: Tensor, goals: dict[str, float], threads: int
) -> Case:
    """A model's samples."""
    works = {
        "thinned": lambda: uncertainty.predict(model, x, SAMPLES, key=Key(0), quantiles=QUANTILES),
        "masks for each row": lambda: uncertainty.predict(
            model, x, SAMPLES, key=Key(0), quantiles=QUANTILES, thin=False
        ),
        "torch, training mode": lambda: passes(model, x),
    }
    return Case(group, name, "thinned", works, {k: 1.0 / v for k, v in goals.items()}, threads)


@torch.no_grad()
def passes(model: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """What `predict` tells, from forward passes in training mode: the plain way."""
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
    return Case(f"{SAMPLES} samples in NumPy, p = {P:g}", name, "thinned", works, {}, threads)


def one_pass(threads: int) -> Case:
    """Mean and variance through the layers, against one pass of evaluation."""
    model, x = perceptron(P, SIZES).eval(), torch.randn(IMAGES, SIZES[0])
    works = {
        "moments": lambda: uncertainty.moments(model, x, quantiles=()),
        "one forward pass": torch.no_grad()(lambda: model(x)),
    }
    name = f"{'-'.join(map(str, SIZES))}, {IMAGES} images"
    return Case("moments, in one pass", name, "moments", works, {"one forward pass": 3.0}, threads)


def accuracy() -> Case:
    """How far a trained network's mean probabilities are from those of many samples, by three ways."""
    name = NAME
    try:
        digits = data.load(name, limit=LIMIT)
    except LabError:  # no download here
        name = "digits"
        digits = data.load(name, limit=LIMIT)
    works = {
        "moments": lambda: distance(digits, "moments"),
        "weight scaling": lambda: distance(digits, "weight scaling"),
        "as many other samples": lambda: distance(digits, "other samples"),
        "the goal": lambda: NEAR,
    }
    group = f"distance from the mean probabilities of {MANY} samples: the mean over images and classes"
    name = f"{len(digits.x_test[:TESTED])} test images of {name}, {EPOCHS} epochs"
    return Case(group, name, "moments", works, {"the goal": 1.0}, unit="probability")


def distance(digits: data.Dataset, way: str) -> float:
    """Of one way."""
    model, x = trained(digits), torch.from_numpy(digits.x_test[:TESTED])
    if way == "moments":
        mean = uncertainty.moments(model, x).mean
    elif way == "weight scaling":
        mean = uncertainty.weight_scaling(model, x)
    else:
        mean = uncertainty.predict(model, x, MANY, key=Key(2), quantiles=()).mean
    return float((mean - sampled(digits)).abs().mean())


@lru_cache(1)
def sampled(digits: data.Dataset) -> Tensor:
    """The mean probabilities of many samples."""
    x = torch.from_numpy(digits.x_test[:TESTED])
    mean: Tensor = uncertainty.predict(trained(digits), x, MANY, key=Key(1), quantiles=()).mean
    return mean


@lru_cache(1)
def trained(digits: data.Dataset) -> nn.Module:
    """The perceptron after a few epochs of thinned training by Adam."""
    torch.manual_seed(0)
    model = tnn.thin(perceptron(P, (digits.x_train.shape[1], *SIZES[1:])))
    x, labels = torch.from_numpy(digits.x_train), torch.from_numpy(digits.y_train)
    rule = torch.optim.Adam(model.parameters())
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            rule.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), labels[rows]).backward()
            rule.step()
    return tnn.thin(model, back=True).eval()
