"""Train one small transformer in many ways, and compare its masks and its losses: docs/same-masks.md.

    python examples/same_masks.py --write docs/same-masks.md

It takes about two minutes on two cores. The processes talk by gloo, so that it runs on any CPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_module
from torch.distributed.tensor import parallel as tp
from torch.utils.checkpoint import checkpoint

import thinned.nn as tnn
from thinned import Key

BATCH, LENGTH, TOKENS, WIDTH, HEADS, STEPS, P = 8, 16, 40, 32, 4, 4, 0.3
LIBRARIES = {"thinned": tnn.Dropout, "torch": nn.Dropout}
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


class Drop(nn.Module):
    """A dropout that shows what it kept; its inputs are never 0."""

    def __init__(self, kind: Callable[[float], nn.Module]) -> None:
        super().__init__()
        self.drop = kind(P)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The result, and where it is not 0."""
        y = self.drop(x)
        return y, y.detach().ne(0)


class Block(nn.Module):
    """Attention and a perceptron, each added to its input, with four dropouts."""

    def __init__(self, kind: Callable[[float], nn.Module]) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.of_weights, self.of_attention, self.of_hidden, self.of_sum = (Drop(kind) for _ in range(4))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, positions, WIDTH) -> same, and four masks."""
        added, *masks = self.attend(self.norm1(x))
        x = x + added
        hidden, of_hidden = self.of_hidden(nn.functional.gelu(self.up(self.norm2(x))))
        added, of_sum = self.of_sum(self.down(hidden))
        return x + added, *masks, of_hidden, of_sum

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Attention, and the masks of its weights and of its output."""
        split = [f(x).reshape(*x.shape[:-1], HEADS, -1) for f in (self.q, self.k, self.v)]
        q, k, v = (part.permute(2, 0, 1, 3).contiguous() for part in split)
        weights = (q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5).softmax(-1)
        weights, of_weights = self.of_weights(weights.transpose(0, 1))  # (N, heads, positions, positions)
        y = (weights.transpose(0, 1).contiguous() @ v).permute(1, 2, 0, 3).contiguous().flatten(2)
        y, of_attention = self.of_attention(self.out(y))
        return y, of_weights, of_attention


class Transformer(nn.Module):
    """Predicts each next token."""

    def __init__(self, kind: Callable[[float], nn.Module], checkpointed: bool = False) -> None:
        super().__init__()
        self.checkpointed = checkpointed
        self.embed = nn.Embedding(TOKENS, WIDTH)
        self.place = nn.Embedding(LENGTH, WIDTH)
        self.first = Drop(kind)
        self.blocks = nn.ModuleList(Block(kind) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, TOKENS)

    def forward(self, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, positions) -> (N, positions, TOKENS), and all masks."""
        places = torch.arange(tokens.shape[1]).expand_as(tokens)
        x, mask = self.first(self.embed(tokens) + self.place(places))
        masks = [mask]
        for block in self.blocks:
            x, *more = checkpoint(block, x, use_reentrant=False) if self.checkpointed else block(x)
            masks += more
        return self.head(self.norm(x)), masks


class Run(NamedTuple):
    """The losses of all steps, and the masks of all steps and dropouts, whole."""

    losses: Tensor
    masks: list[Tensor]


def data() -> tuple[Tensor, Tensor]:
    """Tokens, and the tokens that follow them."""
    text = torch.randint(TOKENS, (BATCH, LENGTH + 1), generator=torch.Generator().manual_seed(7))
    return text[:, :-1], text[:, 1:]


def network(library: str, checkpointed: bool = False) -> Transformer:
    """The network, with the same weights each time."""
    torch.manual_seed(1)
    return Transformer(LIBRARIES[library], checkpointed).double()


def train(
    library: str, net: nn.Module, model: Any = None, micro: int = 1, rank: int = 0, world: int = 1
) -> Run:
    """Train on this process's part of each batch, in ``micro`` parts. Losses are of the whole batch.

    ``net`` is the network, ``model`` what is called: the network itself, wrapped or compiled.
    """
    model = net if model is None else model
    torch.manual_seed(2)
    tokens, following = data()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.2, momentum=0.9)
    size, losses, masks = BATCH // world // micro, [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        total, found = torch.zeros((), dtype=torch.float64), []
        for part in range(micro):
            first = (rank * micro + part) * size
            rows = slice(first, first + size)
            with (
                tnn.keyed(model, Key(3), step, sample_offset=first) if library == "thinned" else nullcontext()
            ):
                y, kept = model(tokens[rows])
                loss = nn.functional.cross_entropy(y.flatten(0, 1), following[rows].flatten()) / micro
                loss.backward()
            total += loss.detach() / world
            found.append([mask.full_tensor() if isinstance(mask, DTensor) else mask for mask in kept])
        optimizer.step()
        losses.append(of_all(total[None], world).sum())
        masks += [of_all(torch.cat(parts), world) for parts in zip(*found, strict=True)]
    return Run(torch.stack(losses), masks)


def of_all(part: Tensor, world: int) -> Tensor:
    """The parts of all processes, one after the other."""
    if world == 1:
        return part
    parts = [torch.empty_like(part) for _ in range(world)]
    distributed.all_gather(parts, part.contiguous())
    return torch.cat(parts)


# Ways of training: in one process, and in several.


@contextmanager
def memory_budget(share: float) -> Iterator[None]:
    """Let the compiler keep this share of the activations, and compute the others again."""
    with torch._functorch.config.patch(activation_memory_budget=share):
        yield


def compiled(library: str, checkpointed: bool = False, budget: float = 1.0) -> Run:
    """The network, captured as one graph, and partitioned; no C++ is compiled, which takes minutes."""
    torch._dynamo.reset()
    net = network(library, checkpointed)
    with memory_budget(budget):
        return train(library, net, torch.compile(net, fullgraph=True, backend="aot_eager_decomp_partition"))


ALONE: dict[str, Callable[[str], Run]] = {
    "one process, once more": lambda library: train(library, network(library)),
    "gradient accumulation, 2 parts": lambda library: train(library, network(library), micro=2),
    "gradient accumulation, 8 parts": lambda library: train(library, network(library), micro=8),
    "activation checkpointing": lambda library: train(library, network(library, checkpointed=True)),
    "compiled": compiled,
    "compiled, activation checkpointing": lambda library: compiled(library, checkpointed=True),
    "compiled, memory budget of ½": lambda library: compiled(library, budget=0.5),
    "compiled, memory budget of 0": lambda library: compiled(library, budget=0.0),
}


def data_parallel(library: str, rank: int, world: int) -> Run:
    """DistributedDataParallel: each process has a part of the batch."""
    net = network(library)
    return train(library, net, nn.parallel.DistributedDataParallel(net), rank=rank, world=world)


def fully_sharded(library: str, rank: int, world: int) -> Run:
    """FSDP2: a part of the batch, and a part of each weight."""
    net = network(library)
    mesh = init_device_mesh("cpu", (world,))
    for block in net.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(net, mesh=mesh)
    return train(library, net, rank=rank, world=world)


def tensor_parallel(library: str, rank: int, world: int, sequence: bool = False) -> Run:
    """DTensor: the whole batch in each process, and a part of the heads and of the hidden units.

    With ``sequence`` what lies between has a part of the positions (sequence parallel).
    """
    net, between = network(library), Shard(1) if sequence else Replicate()
    mesh = init_device_mesh("cpu", (world,))
    into = lambda: tp.ColwiseParallel(input_layouts=between, use_local_output=False)  # noqa: E731
    out = lambda: tp.RowwiseParallel(output_layouts=between, use_local_output=False)  # noqa: E731
    norm = lambda: tp.SequenceParallel(use_local_output=False)  # noqa: E731
    rows = {"input_layouts": Replicate(), "output_layouts": between, "use_local_output": False}
    plan: dict[str, Any] = {"embed": tp.RowwiseParallel(**rows), "place": tp.RowwiseParallel(**rows)}
    for i in range(len(net.blocks)):
        at = f"blocks.{i}."
        plan |= {at + name: into() for name in "qkv"} | {
            at + "up": into(),
            at + "out": out(),
            at + "down": out(),
        }
        if sequence:
            plan |= {at + "norm1": norm(), at + "norm2": norm()}
    if sequence:
        plan["norm"] = norm()
    plan["head"] = tp.ColwiseParallel(input_layouts=between, output_layouts=Replicate())
    tp.parallelize_module(net, mesh, plan)
    return train(library, distribute_module(net, mesh))


SPREAD: dict[str, Callable[[str, int, int], Run]] = {
    "data parallel (DDP)": data_parallel,
    "fully sharded (FSDP2)": fully_sharded,
    "tensor parallel (DTensor)": tensor_parallel,
    "tensor and sequence parallel": lambda *where: tensor_parallel(*where, sequence=True),
}


def worker(folder: str) -> None:
    """One of the processes that torchrun starts."""
    distributed.init_process_group("gloo")
    rank, world = distributed.get_rank(), distributed.get_world_size()
    runs = {
        f"{name}, {world} processes": {library: how(library, rank, world) for library in LIBRARIES}
        for name, how in SPREAD.items()
    }
    if rank == 0:
        torch.save(
            {name: {key: tuple(run) for key, run in by.items()} for name, by in runs.items()},
            Path(folder) / "runs.pt",
        )
    time.sleep(0.2)  # gloo's threads free their last sums under Python's lock, which the next line holds
    distributed.destroy_process_group()


def spread(world: int) -> dict[str, dict[str, Run]]:
    """All runs of several processes on this machine."""
    interface = "lo0" if sys.platform == "darwin" else "lo"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *launch, __file__, "--worker", folder]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": interface}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{world} processes failed:\n{done.stderr[-3000:]}")
        found = torch.load(Path(folder) / "runs.pt")
    return {name: {key: Run(*run) for key, run in by.items()} for name, by in found.items()}


def alone() -> dict[str, dict[str, Run]]:
    """All runs of one process."""
    return {name: {library: how(library) for library in LIBRARIES} for name, how in ALONE.items()}


# What is compared.


def differences(run: Run, base: Run) -> tuple[float, float]:
    """The share of mask bits that differ from those of ``base``, and the largest difference in a loss."""
    assert [mask.shape for mask in run.masks] == [mask.shape for mask in base.masks]
    differ = sum(int((a != b).sum()) for a, b in zip(run.masks, base.masks, strict=True))
    return differ / sum(mask.numel() for mask in base.masks), float((run.losses - base.losses).abs().max())


def table(runs: dict[str, dict[str, Run]], base: dict[str, Run]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| training | masks, thinned | loss, thinned | masks, torch | loss, torch |",
        "| --- |" + " --: |" * 4,
    ]
    for name, by in runs.items():
        cells = [cell for library in LIBRARIES for cell in shown(*differences(by[library], base[library]))]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def shown(masks: float, loss: float) -> tuple[str, str]:
    """A share in percent, and a loss; 0 is exact."""
    return ("0" if masks == 0 else f"{100 * masks:.1f} %"), (
        "0" if loss == 0 else f"{loss:.1g}" if loss < 0.01 else f"{loss:.2f}"
    )


def main(arguments: list[str] | None = None) -> None:
    """Print the table; write it into a page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", type=Path, help="the page that gets the table")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    if options.worker:
        return worker(options.worker)
    base = {library: train(library, network(library)) for library in LIBRARIES}
    found = table({**alone(), **spread(2), **spread(4)}, base)
    print(found)
    if options.write:
        before, _, rest = options.write.read_text(encoding="utf-8").partition(BEGIN)
        page = f"{before}{BEGIN}\n{found}\n{END}{rest.partition(END)[2]}"
        options.write.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
