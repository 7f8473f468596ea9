"""A model of timm with thinned's dropout: python examples/timm_digits.py [--epochs 5].

A small ResNet on the 1,797 digits of scikit-learn, trained as timm trains: `create_model` with
`drop_rate` and `drop_path_rate`, timm's loss and factories of optimizer and schedule. `swap_dropout` gives
the model our modules at timm's rates; `keyed` ties each mask to step and sample.
"""

from __future__ import annotations

import argparse

import timm
import torch
from sklearn.datasets import load_digits
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2

import thinned.nn as tnn
from thinned import Key

BATCH, TRAIN = 50, 1400


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Images (1797, 1, 8, 8) from 0 to 1, and their classes."""
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16, torch.tensor(y)


def build() -> torch.nn.Module:
    """A ResNet of four blocks; its classifier calls dropout as a function."""
    return timm.create_model(
        "resnet18",
        num_classes=10, in_chans=1, layers=(1, 1, 1, 1), channels=(16, 32, 64, 128),
        drop_rate=0.1, drop_path_rate=0.1,
    )  # fmt: skip


def train(model: torch.nn.Module, epochs: int) -> None:
    """AdamW with a cosine, both made by timm; prints a line an epoch."""
    x, y = (part[:TRAIN] for part in digits())
    loss_of = LabelSmoothingCrossEntropy(smoothing=0.1)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=2e-3, weight_decay=0.05)
    schedule, _ = create_scheduler_v2(optimizer, sched="cosine", num_epochs=epochs, warmup_epochs=1)
    key, steps = Key(0), TRAIN // BATCH
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(TRAIN, generator=torch.Generator().manual_seed(epoch))
        for step, rows in enumerate(order.split(BATCH)):
            with tnn.keyed(model, key, epoch * steps + step):
                loss = loss_of(model(x[rows]), y[rows])
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()
        schedule.step(epoch + 1)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, test error {error(model):.1%}")


@torch.no_grad()
def error(model: torch.nn.Module) -> float:
    """The share of wrong classes among the test images."""
    x, y = (part[TRAIN:] for part in digits())
    return (model.eval()(x).argmax(dim=1) != y).double().mean().item()


def main(arguments: list[str] | None = None) -> float:
    """Swap, train, and return the test error."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=5)
    torch.manual_seed(0)
    model = build()
    print(tnn.swap_dropout(model))
    print("rates along the depth:", *(f"{m.p:.3f}" for m in model.modules() if isinstance(m, tnn.DropPath)))
    train(model, parser.parse_args(arguments).epochs)
    return error(model)


if __name__ == "__main__":
    main()
