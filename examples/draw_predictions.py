"""Draws docs/images/predictions: uncertainty of turned digits and strange images, and errors.

python examples/draw_predictions.py docs/images/predictions     # needs MNIST and CIFAR-10
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import itertools

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import thinned.nn as tnn
from thinned import Key, uncertainty
from thinned.lab.data.dataset import Dataset
from thinned.lab.data.registry import load

HIDDEN, P, BATCH, SAMPLES = 1024, 0.5, 128, 100


def trained(digits: Dataset, epochs: int) -> nn.Module:
    """A perceptron with two hidden layers, trained by Adam on the surviving units."""
    torch.manual_seed(0)
    sizes = (digits.x_train.shape[1], HIDDEN, HIDDEN)
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.ReLU(), nn.Dropout(P)]
    model = tnn.thin(nn.Sequential(*layers, nn.Linear(HIDDEN, len(digits.classes))))
    x, y = torch.from_numpy(digits.x_train), torch.from_numpy(digits.y_train)
    rule = torch.optim.Adam(model.parameters())
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            rule.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            rule.step()
    return tnn.thin(model, back=True).eval()


def turned(images: np.ndarray, degrees: float) -> np.ndarray:
    """(N, 784) -> same: each image turned about its middle."""
    angle = np.deg2rad(degrees)
    y, x = np.mgrid[0:28, 0:28] - 13.5
    from_y, from_x = (
        np.cos(angle) * y + np.sin(angle) * x + 13.5,
        np.cos(angle) * x - np.sin(angle) * y + 13.5,
    )
    low_y, low_x = np.floor(from_y).astype(int), np.floor(from_x).astype(int)
    out = np.zeros((len(images), 28, 28), np.float32)
    padded = np.pad(images.reshape(-1, 28, 28), ((0, 0), (8, 8), (8, 8)))
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        part = np.abs(1 - i - (from_y - low_y)) * np.abs(1 - j - (from_x - low_x))
        out += part.astype(np.float32) * padded[:, low_y + i + 8, low_x + j + 8]
    return out.reshape(len(images), -1)


def strange(count: int) -> np.ndarray:
    """CIFAR-10 photographs as grey images of the size of MNIST digits, (count, 784)."""
    photos = load("cifar10")
    images = photos.x_test[:count].reshape(-1, *photos.shape)
    images = images if images.shape[-1] == 3 else np.moveaxis(images, 1, -1)
    return images.mean(-1)[:, 2:30, 2:30].reshape(count, -1).astype(np.float32)


def draw_turned(model: nn.Module, digits: Dataset, folder: Path) -> None:
    """One digit turned step by step: the probabilities of the samples, and their mutual information."""
    one = digits.x_test[np.flatnonzero(digits.y_test == 1)[-1]][None]
    angles = np.arange(0, 181, 15)
    rows = np.concatenate([turned(one, angle) for angle in angles])
    prediction = uncertainty.predict(model, torch.from_numpy(rows), 400, key=Key(0), quantiles=(0.1, 0.9))
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(7, 4), height_ratios=(1, 3.2), layout="constrained")
    top.imshow(np.hstack(rows.reshape(-1, 28, 28)), cmap="gray_r")
    top.axis("off")
    for c in np.argsort(-prediction.mean.numpy().max(0))[:4]:
        bottom.plot(angles, prediction.mean[:, c], label=f"P({digits.classes[c]})")
        bottom.fill_between(angles, prediction.quantiles[0, :, c], prediction.quantiles[1, :, c], alpha=0.2)
    bottom.plot(angles, prediction.mutual_information, "k--", label="mutual information, nats")
    bottom.set(xlabel="degrees turned", ylim=(0, 1), xlim=(angles[0] - 7.5, angles[-1] + 7.5))
    bottom.legend(fontsize=8, ncols=3, loc="upper center")
    save(figure, folder / "turned.png")


def draw_strange(model: nn.Module, digits: Dataset, folder: Path) -> None:
    """The uncertainty of digits, turned digits and photographs."""
    x = digits.x_test[:1000]
    sets = {"test digits": x, "turned by 90°": turned(x, 90.0), "grey CIFAR-10": strange(1000)}
    figure, axes = plt.subplots(1, 2, figsize=(7, 2.8), layout="constrained")
    for name, rows in sets.items():
        prediction = uncertainty.predict(model, torch.from_numpy(rows), SAMPLES, key=Key(0), quantiles=())
        for axis, field in zip(axes, ("entropy", "mutual_information"), strict=True):
            values = np.sort(getattr(prediction, field).numpy())
            axis.plot(values, np.arange(1, len(values) + 1) / len(values), label=name)
            axis.set(xlabel=f"{field.replace('_', ' ')}, nats", ylabel="share of images below", ylim=(0, 1))
    axes[0].legend(fontsize=8)
    save(figure, folder / "strange.png")


def draw_rejection(model: nn.Module, digits: Dataset, folder: Path) -> None:
    """The error of the kept images over the rejected share."""
    x, y = torch.from_numpy(digits.x_test), digits.y_test
    prediction = uncertainty.predict(model, x, SAMPLES, key=Key(0), quantiles=())
    figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
    ways = {
        "Monte-Carlo, by probability": uncertainty.rejection(prediction.mean, y),
        "Monte-Carlo, by entropy": uncertainty.rejection(prediction.mean, y, prediction.entropy),
        "weight scaling, by probability": uncertainty.rejection(uncertainty.weight_scaling(model, x), y),
    }
    for way, (share, error) in ways.items():
        axis.plot(share, 100 * error, label=way)
    axis.set(xlabel="share rejected", ylabel="error of the rest, %", xlim=(0, 0.5), ylim=(0, None))
    axis.legend(fontsize=8)
    save(figure, folder / "rejection.png")


def save(figure: plt.Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--limit", type=int, help="the number of training examples")
    options = parser.parse_args(arguments)
    digits = load("mnist", limit=options.limit)
    model = trained(digits, options.epochs)
    for draw in (draw_turned, draw_strange, draw_rejection):
        draw(model, digits, options.folder)


if __name__ == "__main__":
    main()
