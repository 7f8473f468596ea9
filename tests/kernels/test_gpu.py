"""The Triton kernels give the reference's bits: on a GPU where there is one, else under Triton's interpreter.

Triton decides once for a process whether it interprets: `test_all_under_the_interpreter` runs TestKernels in
a process of its own. What the interpreter does not see, that the compiler takes the kernels, is tested here.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import thinned
from thinned import Key, functional, kernels
from thinned.kernels import connect
from thinned.kernels.work import Blocks, Draw
from thinned.key import bernoulli, threshold

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
gpu = pytest.importorskip("thinned.kernels.gpu")
from triton import language as tl  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
ANSWERS = json.loads((Path(__file__).parents[1] / "known_answers.json").read_text(encoding="utf-8"))
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
LAST = 2**64


def whole_numbers(*shape, dtype=torch.float32):
    """Small ones: their sums of products are exact, in any order."""
    values = np.random.default_rng(sum(shape)).integers(-3, 4, shape)
    return torch.from_numpy(values).to(dtype)


@pytest.fixture
def on_device(monkeypatch):
    """Puts a tensor where the Triton kernels take it; the interpreter needs the library to see a GPU."""
    if INTERPRETED:
        monkeypatch.setattr(kernels, "on_gpu", lambda x: gpu if isinstance(x, torch.Tensor) else None)
    return lambda x: x.to(DEVICE)


class TestKernels:
    __test__ = INTERPRETED or torch.cuda.is_available()

    def test_known_answers(self):
        for answer in ANSWERS["keep_mask"]:
            key, n = Key(int(answer["seed"])), answer["n"]
            kept = gpu.mask(key, n, threshold(answer["p"]), int(answer["start"]), DEVICE).cpu().numpy()
            assert np.packbits(kept, bitorder="little").tobytes().hex() == answer["kept_hex"], answer

    @pytest.mark.parametrize("p", [0.0, 2.0**-40, 1e-9, 0.1, 0.25, 0.5, 0.75, 1 - 1e-9, 1.0])
    @pytest.mark.parametrize(
        ("n", "start"),
        [(0, 5), (1, 0), (127, 1), (129, 2**39 - 64), (300, 2**63 - 100), (4100, 64), (700, LAST - 700)],
    )
    def test_masks_equal_the_reference(self, n, start, p):
        kept = gpu.mask(Key(LAST - 1), n, threshold(p), start, DEVICE).cpu().numpy()
        assert np.array_equal(kept, bernoulli(Key(LAST - 1), n, threshold(p), start))

    @pytest.mark.skipif(not INTERPRETED, reason="planes are counted in the interpreter")
    @pytest.mark.parametrize(
        ("p", "low", "high"), [(0.0, 0, 0), (1.0, 0, 0), (0.5, 1, 1), (0.75, 2, 2), (0.1, 4, 31)]
    )
    def test_planes_end_where_all_is_decided(self, monkeypatch, p, low, high):
        philox, planes = tl.philox, []
        monkeypatch.setattr(tl, "philox", lambda *counter: planes.append(0) or philox(*counter))
        gpu.mask(Key(3), 1000, threshold(p), 0, DEVICE)
        assert low <= len(planes) <= high

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("p", [0.1, 0.75, 1.0])
    def test_dropout_equals_the_reference(self, on_device, dtype, p):
        if INTERPRETED and dtype == torch.bfloat16 and p == 0.1:
            pytest.skip("the interpreter cuts bfloat16 off; the compiled kernel rounds, see below")
        generator = torch.Generator().manual_seed(1)
        base = torch.randn(21, 50, generator=generator).to(dtype)
        base[3, :9], base[5, 7:20] = torch.nan, torch.inf
        for x, offset in ((base, 0), (base[:, ::2], 5), (base.T[1:], 2**40 + 1), (base[:0], 0)):
            kept = bernoulli(Key(8), x.numel(), threshold(p), offset * x.shape[1]).reshape(x.shape)
            expected = torch.where(torch.from_numpy(kept), x * (1 / (1 - p) if p < 1 else 1.0), 0.0)
            leaf = on_device(x).requires_grad_()
            y = thinned.dropout(leaf, p, key=Key(8), sample_offset=offset)
            assert y.dtype == dtype
            torch.testing.assert_close(y.detach().cpu(), expected, rtol=0, atol=0, equal_nan=True)
        y = thinned.dropout(leaf := on_device(base).requires_grad_(), p, key=Key(8))
        y.backward(on_device(base))
        torch.testing.assert_close(leaf.grad, y.detach(), rtol=0, atol=0, equal_nan=True)

    def test_keep_mask_is_made_on_the_device(self, on_device):
        like = on_device(torch.empty(0))
        kept = thinned.keep_mask((5, 7, 9), 0.3, key=Key(2), start=77, like=like)
        assert kept.device == like.device
        assert np.array_equal(kept.cpu().numpy(), thinned.keep_mask((5, 7, 9), 0.3, key=Key(2), start=77))

    @pytest.mark.parametrize(
        ("shape", "size", "per_channel", "offset"),
        [
            ((2, 3, 9), 3, True, 0),
            ((2, 2, 70), 40, True, 3),  # wider than a window
            ((1, 2, 130), 66, False, 1),  # two windows
            ((3, 2, 9, 11), 4, True, 2**40),
            ((2, 3, 5, 33), 3, False, 1),
            ((2, 2, 6, 5), 8, True, 0),  # larger than the map
            ((2, 2, 4, 5, 6), 2, True, 7),
            ((2, 1, 3, 3, 34), 3, False, 0),
            ((3, 1, 1, 1), 3, True, 1),
            ((1, 90, 2, 4), 1, True, 0),  # two programs a sample
            ((2, 0, 4, 4), 2, True, 0),
        ],
    )
    @pytest.mark.parametrize("p", [0.2, 1.0])
    def test_drop_block_equals_the_reference(self, on_device, shape, size, per_channel, offset, p):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
        how = {"key": Key(6), "per_channel": per_channel, "sample_offset": offset}
        expected = thinned.drop_block(x.numpy(), p, size, **how)
        y = thinned.drop_block(on_device(x), p, size, **how)
        assert np.array_equal(y.cpu().numpy(), expected)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
    def test_drop_block_by_dtype_and_index(self, on_device, monkeypatch, dtype):
        monkeypatch.setattr(gpu, "_index", lambda strips: tl.int64)
        x = torch.randn(2, 7, 6, 5, generator=torch.Generator().manual_seed(3)).to(dtype).transpose(1, 2)
        expected = thinned.drop_block(x.numpy(), 0.4, 2, key=Key(7))
        assert np.array_equal(thinned.drop_block(on_device(x), 0.4, 2, key=Key(7)).cpu().numpy(), expected)

    @pytest.mark.parametrize(
        ("samples", "outputs", "inputs", "p", "offset", "dtype"),
        [
            (2, 17, 128, 0.3, 0, torch.float32),
            (3, 5, 130, 0.5, 1, torch.float64),
            (2, 18, 100, 0.5, 2**40, torch.float32),
            (2, 3, 7, 0.75, 3, torch.float16),
            (2, 3, 4, 1.0, 0, torch.float32),
            (0, 3, 4, 0.5, 0, torch.float32),
        ],
    )
    def test_drop_connect_equals_the_reference(self, on_device, samples, outputs, inputs, p, offset, dtype):
        x, grad = whole_numbers(samples, inputs, dtype=dtype), whole_numbers(samples, outputs, dtype=dtype)
        weight, how = whole_numbers(inputs, outputs, dtype=dtype).T, {"key": Key(5), "sample_offset": offset}
        expected = thinned.drop_connect(x.numpy(), weight.numpy(), None, p, **how)
        by_x, by_weight = functional.drop_connect_gradient(grad.numpy(), x.numpy(), weight.numpy(), p, **how)

        leaves = on_device(x).requires_grad_(), on_device(weight).requires_grad_()
        y = thinned.drop_connect(*leaves, None, p, **how)
        y.backward(on_device(grad))
        assert np.array_equal(y.detach().cpu().numpy(), expected)
        assert np.array_equal(leaves[0].grad.cpu().numpy(), by_x)
        assert np.array_equal(leaves[1].grad.cpu().numpy(), by_weight)

    def test_drop_connect_selects_and_does_only_what_is_needed(self):
        key, x, weight = Key(1), whole_numbers(1, 130) + 5, whole_numbers(2, 130)
        kept = torch.from_numpy(bernoulli(key, 260, threshold(0.5)).reshape(2, 130))
        draw = Draw(key, threshold(0.5), 2.0, 0)
        hidden = torch.where(kept, weight, torch.nan)
        args = x.to(DEVICE), hidden.to(DEVICE)
        assert torch.equal(
            connect.forward(*args, draw).cpu(), torch.where(kept, weight, 0.0).matmul(x[0])[None] * 2
        )
        grad = whole_numbers(1, 2).to(DEVICE)
        assert torch.isfinite(connect.backward(grad, *args, draw, (True, False))[0]).all()
        assert connect.backward(grad, *args, draw, (False, False)) == (None, None)


@pytest.mark.skipif(INTERPRETED, reason="is what runs this")
def test_all_under_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", f"{__file__}::TestKernels"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout).group(1)) > 90, done.stdout


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """Compiles what would be launched, as for an A100, from the very arguments: the kernels by name."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver

    device, found = 99, {}  # no device of this machine, whose kernels are kept by number
    a100 = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", 80, 32),
        get_current_device=lambda: device,
        get_current_stream=lambda _: 0,
    )

    def launch(kernel, programs, *args, **constants):
        options = {"grid": (programs,), "num_warps": 1, "enable_fp_fusion": True}
        found.setdefault(kernel.fn.__name__, []).append(kernel.warmup(*args, **options, **constants))

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(driver, "_active", a100)
    monkeypatch.setattr(gpu, "_launch", launch)
    return found


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
class TestCompiler:
    def test_dropout_writes_in_vectors_and_rounds(self, compiled):
        gpu.dropout(torch.zeros(4096, dtype=torch.bfloat16), Key(1), 2**31, 2.0, 0)
        ptx = compiled["_dropout_kernel"][0].asm["ptx"]
        assert re.search(r"ld\.global(\.\w+)?\.v4\.b32", ptx)
        assert re.search(r"st\.global(\.\w+)?\.v4\.b32", ptx)
        assert "cvt.rn.bf16" in ptx

    def test_another_key_rate_or_start_compiles_nothing(self, compiled):
        for seed, limit, start in ((0, 1, 0), (LAST - 1, 2**32, LAST - 2**20), (16, 2**31, 2**40)):
            gpu.mask(Key(seed), 5000, limit, start, "cpu")
        assert len({id(kernel) for kernel in compiled["_mask_kernel"]}) == 1

    @pytest.mark.parametrize("shape", [(2, 1, 1), (2, 3, 4, 64), (1, 2, 3, 4, 5)], ids=str)
    def test_drop_block(self, compiled, shape):
        sizes = tuple(min(2, size) for size in shape[2:])
        gpu.drop_block(torch.zeros(shape, dtype=torch.float16), Blocks(Key(3), 2**31, 1, sizes, True))
        assert set(compiled) == {"_seeds_kernel", "_survivors_kernel", "_drop_block_kernel"}

    @pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 16, 128)], ids=str)
    def test_drop_connect(self, compiled, sizes):
        samples, outputs, inputs = sizes
        draw = Draw(Key(3), 2**31, 2.0, 0)
        x, weight = torch.zeros(samples, inputs), torch.zeros(outputs, inputs)
        for which, pair in enumerate(
            ((x, weight), (x.new_zeros(samples, outputs), weight), (x.new_zeros(samples, outputs), x))
        ):
            gpu.connect(which, *pair, (samples, outputs, inputs), draw)
        assert set(compiled) == {"_connect_kernel", "_connect_x_kernel", "_connect_weight_kernel"}


class TestChoice:
    """Which kernels a tensor gets."""

    @pytest.fixture(autouse=True)
    def _afresh(self):
        kernels.triton.cache_clear()
        yield
        kernels.triton.cache_clear()

    def test_a_tensor_on_the_cpu_never_asks(self, monkeypatch):
        monkeypatch.setattr(kernels, "triton", lambda: pytest.fail("asked"))
        assert kernels.on_gpu(torch.ones(1)) is None
        assert kernels.on_gpu(np.ones(1)) is None
        assert kernels.on_gpu(None) is None

    def test_without_triton_it_is_silent(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "thinned.kernels.gpu", None)
        monkeypatch.delattr(kernels, "gpu")
        assert kernels.triton() is None

    def test_numpy_is_silent(self, monkeypatch):
        monkeypatch.setenv("THINNED_KERNELS", "numpy")
        assert kernels.triton() is None

    def test_what_does_not_run_is_reported_once(self, monkeypatch):
        def broken(*_):
            raise RuntimeError("Failed to find C compiler.")

        monkeypatch.setattr(gpu, "mask", broken)
        with pytest.warns(
            RuntimeWarning, match=r"does not run here \(RuntimeError: Failed to find C compiler"
        ):
            assert kernels.triton() is None
        assert kernels.triton() is None  # a second warning would be an error
