"""One process with a batch of 64 trains as two with 32 each, which run this file as a script."""

import os
import subprocess
import sys
import time

import pytest

from thinned import Key

torch = pytest.importorskip("torch")

from torch import distributed, nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import thinned.nn as tnn  # noqa: E402

BATCH, STEPS, EPS = 64, 6, torch.finfo(torch.float64).eps


class Net(nn.Module):
    """Units of every kind: elements, noise, channels, blocks, samples, weights."""

    def __init__(self, checkpointed):
        super().__init__()
        self.checkpointed = checkpointed
        self.first = nn.Sequential(nn.Linear(10, 24), nn.Tanh(), tnn.Dropout(0.5), tnn.AlphaDropout(0.2))
        self.middle = nn.Sequential(tnn.Residual(nn.Linear(24, 24), 0.3), tnn.GaussianDropout(0.2))
        self.map = nn.Sequential(
            nn.Unflatten(1, (4, 6)), tnn.Dropout1d(0.3), tnn.DropBlock1d(0.2, 3), nn.Flatten()
        )
        self.last = tnn.DropConnectLinear(24, 3, p=0.4)

    def forward(self, x):
        for part in (self.first, self.middle, self.map, self.last):
            x = checkpoint(part, x, use_reentrant=False) if self.checkpointed else part(x)
        return x


def masks(n, offset):
    """The factors of each drop of the net, exactly: from ones, and weights that are powers of two."""
    net = Net(False).double()
    net.middle[0].branch = nn.Identity()
    with torch.no_grad():
        net.last.weight.copy_(2.0 ** torch.arange(24.0))
        net.last.bias.zero_()
    ones, maps = torch.ones(n, 24, dtype=torch.float64), torch.ones(n, 4, 6, dtype=torch.float64)
    drops = {name: net.get_submodule(name) for name in ("first.2", "first.3", "middle.0", "middle.1", "last")}
    with torch.no_grad(), tnn.keyed(net, Key(3), 0, sample_offset=offset):
        factors = {name: drop(ones) for name, drop in drops.items()}
        return {**factors, "map.1": net.map[1](maps), "map.2": net.map[2](maps)}


def train(rank=0, world=1, checkpointed=False, shift=0.0):
    """Every step's loss and gradient norm, as means over all processes, and the first gradient."""
    torch.manual_seed(1)
    net = Net(checkpointed).double()
    with torch.no_grad():
        for w in net.parameters():
            w.mul_(1 + shift * torch.randn_like(w))
    torch.manual_seed(100 + rank)  # the processes' own generators are of no account
    x = torch.linspace(-40, 40, BATCH * 10, dtype=torch.float64).sin().reshape(BATCH, 10)
    labels = torch.arange(BATCH) % 3
    mine = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
    model = nn.parallel.DistributedDataParallel(net) if world > 1 else net
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    losses, first = [], None
    for step in range(STEPS):
        optimizer.zero_grad()
        with tnn.keyed(model, Key(3), step, sample_offset=mine.start):
            loss = nn.functional.cross_entropy(model(x[mine]), labels[mine])
            loss.backward()
        if first is None:
            first = torch.cat([w.grad.flatten() for w in net.parameters()])
        optimizer.step()
        loss = loss.detach() / world
        if world > 1:
            distributed.all_reduce(loss)
        losses.append(loss)
    return torch.stack(losses), first


def worker(folder):
    """One of the processes that torchrun starts."""
    distributed.init_process_group("gloo")
    rank, world = distributed.get_rank(), distributed.get_world_size()
    results = {
        "masks": masks(BATCH // world, rank * BATCH // world),
        "plain": train(rank, world),
        "checkpointed": train(rank, world, checkpointed=True),
    }
    torch.save(results, os.path.join(folder, f"{rank}.pt"))
    time.sleep(0.2)  # gloo's threads free their last sums under Python's lock, which the next line holds
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The results of both processes."""
    if not distributed.is_available() or not distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    folder = tmp_path_factory.mktemp("two")
    interface = "lo0" if sys.platform == "darwin" else "lo"
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            __file__,
            str(folder),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": interface},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_masks_are_equal_bit_by_bit(two):
    whole = masks(BATCH, 0)
    assert len(whole) == 7
    for name, factors in whole.items():
        parts = [rank["masks"][name] for rank in two]
        assert torch.equal(torch.cat(parts), factors), name
        assert len({tuple(row.flatten().tolist()) for row in factors}) > 1, f"{name} drops nothing"
        assert not torch.equal(*parts), f"{name} drops the same in both halves"


@pytest.mark.parametrize("kind", ["plain", "checkpointed"])
def test_losses_are_equal_to_rounding(two, kind):
    """Two processes sum a batch's gradients in another order: a relative change of up to BATCH·ε a step.

    How much such a change grows up to a step is measured: by weights that are off by 10⁻⁶ from the start.
    """
    losses, first = train()
    off = 1e-6
    growth = max(float((train(shift=off * sign)[0] - losses).abs().max()) / off for sign in (1, -1))
    bound = STEPS * BATCH * EPS * max(1.0, growth)
    for rank in two:
        assert float((rank[kind][0] - losses).abs().max()) <= bound
        assert float((rank[kind][1] - first).norm() / first.norm()) <= bound
    assert bound < 1e-9, "far below what another mask would change"


def test_checkpointing_changes_no_bit(two):
    for rank in two:
        for plain, again in zip(rank["plain"], rank["checkpointed"], strict=True):
            assert torch.equal(plain, again)
    for plain, again in zip(train(), train(checkpointed=True), strict=True):
        assert torch.equal(plain, again)


if __name__ == "__main__":
    worker(sys.argv[1])
