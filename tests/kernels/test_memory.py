"""Every kernel and every kind of tensor: the right numbers, or one clear line; never another's memory.

A wrong address may end the process, so the walk is a program of its own: `python test_memory.py`.
"""

import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import thinned
from thinned import Key, _array
from thinned.kernels import survivors

ROWS, COLUMNS = 6, 8
STEPS = {"SGD", "SGD with momentum", "AdamW"}
NUMBERS, LAYER = "take the numbers", "DropConnectLinear"
RECORDED, BACK = "Dropout, recorded", "gradient of Dropout"
# Who may refuse what, in one line; all else must be right.
MAY_REFUSE = {
    "wrapper": {NUMBERS},
    "DTensor": "all but steps",
    "masked": {"drop_block", "drop_connect", "its weight", LAYER, "take", "place", "add", NUMBERS, *STEPS},
    "functional": {NUMBERS},
    "fake": {"Dropout", "Dropout, in place", LAYER, NUMBERS},
    "fake, outside of its mode": {LAYER, NUMBERS},
    "meta": {"drop_connect", "its weight", LAYER, NUMBERS, BACK},
    "zero": {"Dropout, in place", "add", NUMBERS, *STEPS},
    "batched": {NUMBERS, RECORDED, BACK},
    "in grad": {NUMBERS, RECORDED, BACK},
    "in jvp": {NUMBERS, RECORDED, BACK},
    "inference": {BACK},
    "nested": "all",
    "nested, jagged": "all",
    "sparse": "all",
    "compressed sparse": "all",
    "mkldnn": "all",
    "quantised": "all",
    "complex": "all",
    "cut": "all",
    "cut to nothing": "all",
}


def numbers(torch):
    return torch.linspace(-2.0, 2.0, ROWS * COLUMNS).reshape(ROWS, COLUMNS)


def calls(torch):
    """By name: a call of a function that makes tensors (6, 8); the same for the same numbers."""
    import thinned.nn as tnn

    key, some = Key(5), np.array([1, 4])

    def of(call):
        return lambda new: call(new())

    def layer(kind, *args):
        def call(new):
            torch.manual_seed(3)
            return kind(*args)(new())

        return call

    def back(new):
        torch.manual_seed(3)
        x = numbers(torch).requires_grad_()
        y = tnn.Dropout()(x)
        return torch.autograd.grad(y, x, new().detach())[0]

    def added(new):
        x = new().detach()
        survivors.add(x, new().detach()[:2], some)
        return x

    def stepped(optimizer, **options):
        def call(new):
            p, p.grad = new().detach(), new().detach()
            one = optimizer([p], lr=0.25, weight_decay=0.5, **options)
            one.step()
            one.step()
            return p

        return call

    return {
        "dropout": of(lambda x: thinned.dropout(x, key=key)),
        "gaussian_dropout": of(lambda x: thinned.gaussian_dropout(x, key=key)),
        "alpha_dropout": of(lambda x: thinned.alpha_dropout(x, key=key)),
        "spatial_dropout": of(lambda x: thinned.spatial_dropout(x, key=key)),
        "drop_path": of(lambda x: thinned.drop_path(x, 0.5, key=key)),
        "thin_dropout": of(lambda x: thinned.functional.thin_dropout(x, key=key)),
        "drop_block": of(lambda x: thinned.drop_block(x.unsqueeze(0), 0.2, 3, key=key).squeeze(0)),
        "drop_connect": of(lambda x: thinned.drop_connect(x, torch.ones_like(x), key=key)),
        "its weight": of(lambda x: thinned.drop_connect(torch.ones_like(x), x, key=key)),
        "Dropout": layer(tnn.Dropout),
        RECORDED: of(lambda x: layer(tnn.Dropout)(lambda: x.detach().requires_grad_())),
        BACK: back,
        "Dropout, in place": layer(tnn.Dropout, 0.5, True),
        LAYER: layer(tnn.DropConnectLinear, COLUMNS, 3),
        "take": of(lambda x: survivors.take(x.detach(), some, some)),
        "place": of(lambda x: survivors.place(x.detach()[:2], some, None, (ROWS, COLUMNS))),
        "add": added,
        NUMBERS: of(lambda x: torch.from_numpy(_array.to_numpy(x).copy())),
        "SGD": stepped(tnn.SGD),
        "SGD with momentum": stepped(tnn.SGD, momentum=0.9),
        "AdamW": stepped(tnn.AdamW),
    }


# A kind is a function of a call and numbers. It returns pairs: what came, and what had to come.


def alike(make, back=lambda y: y):
    """A kind that is made of a plain tensor, and of which ``back`` makes one."""
    return lambda call, x: [(back(call(lambda: make(x.clone()))), call(x.clone))]


def shapes(make, enter=contextlib.nullcontext):
    """A kind without numbers: only shape and dtype are compared."""

    def run(call, x):
        with enter() as mode:
            y = call(lambda: make(x, mode))
        expected = call(x.clone)
        assert (y.shape, y.dtype) == (expected.shape, expected.dtype), "shape or dtype"
        return []

    return run


def kinds(torch, folder):
    from torch._subclasses import FakeTensorMode
    from torch.autograd import forward_ad
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, distribute_tensor

    class Named(torch.Tensor):
        """A subclass with memory."""

    class Watched(torch.Tensor):
        """A subclass with memory, which makes all its operations plain."""

        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
            with torch._C._DisableTorchDispatch():
                return func(*args, **(kwargs or {}))

    class Wrapper(torch.Tensor):
        """A subclass without memory."""

        @staticmethod
        def __new__(cls, inner):
            options = {"dtype": inner.dtype, "strides": inner.stride()}
            self = torch.Tensor._make_wrapper_subclass(cls, inner.shape, **options)
            self.inner = inner
            return self

        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
            only, met = torch.utils._pytree.tree_map_only, {}

            def inner(x):
                met[id(x.inner)] = x
                return x.inner

            out = func(*only(Wrapper, inner, args), **only(Wrapper, inner, kwargs or {}))
            return only(torch.Tensor, lambda y: met[id(y)] if id(y) in met else Wrapper(y), out)

    def mapped(x):
        path = Path(tempfile.mkdtemp(dir=folder)) / "numbers"
        x.numpy().tofile(path)
        return torch.from_file(str(path), shared=True, size=x.numel()).view_as(x)

    def cut(x, left):
        y = x.clone()
        y.untyped_storage().resize_(left)
        return y

    def at_an_odd_byte(x):
        return torch.frombuffer(bytearray(b"?" + x.numpy().tobytes()), dtype=x.dtype, offset=1).view_as(x)

    def shared(x):
        return x.clone().share_memory_()

    def functional(y):
        torch._sync(y)
        return torch._from_functional_tensor(y)

    def in_inference(call, x):
        with torch.inference_mode():
            return [(call(x.clone), call(x.clone))]

    def dual(call, x):
        with forward_ad.dual_level():
            return [(call(lambda: forward_ad.make_dual(x.clone(), x.clone())), call(x.clone))]

    def batched(call, x):
        out = torch.vmap(lambda x: call(lambda: x + 0), randomness="same")(torch.stack([x, 2 * x]))
        return [(out[0], call(x.clone)), (out[1], call(lambda: 2 * x))]

    def in_grad(call, x):
        def summed(x):
            y = call(lambda: x + 0)
            return y.sum(), y

        return [(torch.func.grad(summed, has_aux=True)(x)[1], call(x.clone))]

    def in_jvp(call, x):
        return [(torch.func.jvp(lambda x: call(lambda: x + 0), (x,), (x,))[0], call(x.clone))]

    def nested(layout):
        def run(call, x):
            y = call(lambda: torch.nested.as_nested_tensor([x[:2], x[2:]], layout=layout))
            return [(torch.cat(list(y.unbind())), call(x.clone))]

        return run

    outside = FakeTensorMode()
    mesh = init_device_mesh("cpu", (1,))
    found = {
        "plain": alike(lambda x: x),
        "subclass": alike(lambda x: x.as_subclass(Named), lambda y: y.as_subclass(torch.Tensor)),
        "subclass that sees all": alike(lambda x: x.as_subclass(Watched)),
        "wrapper": alike(Wrapper, lambda y: getattr(y, "inner", y)),
        "DTensor": alike(
            lambda x: distribute_tensor(x, mesh, [Replicate()]),
            lambda y: y.full_tensor() if hasattr(y, "full_tensor") else y,
        ),
        "masked": alike(
            lambda x: torch.masked.masked_tensor(x, torch.ones_like(x, dtype=torch.bool)),
            lambda y: y.get_data() if hasattr(y, "get_data") else y,
        ),
        "functional": alike(torch._to_functional_tensor, functional),
        "fake": shapes(lambda x, mode: mode.from_tensor(x), FakeTensorMode),
        "fake, outside of its mode": shapes(lambda x, _: outside.from_tensor(x)),
        "meta": shapes(lambda x, _: x.to("meta")),
        "zero": lambda call, x: [
            (call(lambda: torch._efficientzerotensor(x.shape)) + 0, call(lambda: 0 * x))
        ],
        "dual": dual,
        "batched": batched,
        "in grad": in_grad,
        "in jvp": in_jvp,
        "nested": nested(torch.strided),
        "nested, jagged": nested(torch.jagged),
        "sparse": alike(lambda x: x.to_sparse(), lambda y: y.to_dense()),
        "compressed sparse": alike(lambda x: x.to_sparse_csr(), lambda y: y.to_dense()),
        "mkldnn": alike(lambda x: x.to_mkldnn(), lambda y: y.to_dense()),
        "quantised": alike(lambda x: torch.quantize_per_tensor(x, 0.5, 0, torch.qint32)),
        "complex": alike(lambda x: torch.complex(x, x), lambda y: y.real),
        "lazily negated": alike(lambda x: torch.complex(x, -x).conj().imag),
        "inference": in_inference,
        "shared": alike(shared),
        "memory-mapped": alike(mapped),
        "copied when written": alike(torch._lazy_clone),
        "cut": alike(lambda x: cut(x, 40)),
        "cut to nothing": alike(lambda x: cut(x, 0)),
        "at an odd byte": alike(at_an_odd_byte),
        "transposed": alike(lambda x: x.T.contiguous().T),
        "every second": alike(lambda x: x.repeat_interleave(2, 1)[:, ::2]),
        "at the end of its memory": alike(lambda x: torch.cat([x, x])[ROWS:]),
    }
    if torch.cuda.is_available():
        found["pinned"] = alike(lambda x: x.pin_memory())
    return found


def walk():
    """Print a line for each kind and call: what came."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    with tempfile.TemporaryDirectory() as folder:
        for kind, run in kinds(torch, folder).items():
            for name, call in calls(torch).items():
                print(f"{kind} | {name}", end=" | ", flush=True)
                try:
                    for came, expected in run(call, numbers(torch)):
                        torch.testing.assert_close(came.detach(), expected.detach(), check_stride=False)
                    print("right")
                except AssertionError as error:
                    fake = "FakeTensor" in str(error)  # torch's own refusal is of this type
                    print("refused" if fake else "wrong", " ".join(str(error).split())[:300])
                except Exception as error:
                    print(f"refused {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    dist.destroy_process_group()


@pytest.mark.usefixtures("torch")
def test_every_kernel_takes_every_kind_of_tensor_or_says_that_it_does_not():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__], capture_output=True, text=True, timeout=600
    )
    lines = [line.split(" | ") for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"exit {done.returncode} in {lines[-1]}: {done.stderr[-2000:]}"
    bad = []
    for kind, name, came in lines:
        allowed = MAY_REFUSE.get(kind, ())
        may = allowed == "all" or (name not in STEPS if allowed == "all but steps" else name in allowed)
        if came != "right" and not (may and came.startswith("refused")):
            bad.append(f"{kind}, {name}: {came}")
    assert not bad, "\n".join(bad)
    assert {kind for kind, *_ in lines} > MAY_REFUSE.keys()


if __name__ == "__main__":
    walk()
