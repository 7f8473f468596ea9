"""The kernels on a GPU, in Triton: the bits of `thinned.key.bernoulli`, made inside each kernel.

A program is one warp. It draws the bit planes of its groups of 128 units, a group a thread, until all units
are decided or the rest of the limit is zero; then it spreads the words over rows of 32 units, so that memory
is read and written in order. No mask is kept for the backward pass, and the host never waits for the device:
key, limit and start are arguments.

Units are counted in 64 bits, within a program in 32. Half precision is computed in single and rounded once.
The functions make tensors contiguous. Their callers check the arguments.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import torch
import triton
import triton.language as tl

from thinned.kernels.work import Blocks, Draw, Map, Select, Words, key_of
from thinned.key import GROUP, Key

ROWS: tl.constexpr = tl.constexpr(16)  # outputs in a tile of drop_connect, by 128 inputs
STRIPS = 64  # rows of 32 places in a program of drop_block
# Arguments that Triton must not specialise, so that no kernel is compiled again for 1 or multiples of 16.
VARYING = ["seed", "limit", "group", "start", "scale", "n", "samples", "outputs"]
VARYING += ["size", "skip", "strips", "maps", "height", "high", "wide"]


@triton.jit
def _decide(bits, below, undecided, one):
    """One plane: where the limit's bit is one, a zero is below; where both are equal, the next decides."""
    return below | (undecided & ~bits & one), undecided & (bits ^ ~one)


@triton.jit
def _below(group, seed, limit):
    """Which of the 128 units of each group are kept, in four words: (…) uint64 -> four times (…) uint32."""
    limit = limit.to(tl.int64)
    low, high = group.to(tl.uint32), (group >> 32).to(tl.uint32)
    b0 = tl.zeros_like(low) | (limit << 31 >> 63).to(
        tl.uint32
    )  # bit 32 in all lanes: the limit 2³² keeps all
    b1, b2, b3 = b0, b0, b0
    u0 = ~b0
    u1, u2, u3 = u0, u0, u0
    rest = limit.to(tl.uint32)
    plane = tl.zeros_like(rest)
    while (rest != 0) & (tl.max(u0 | u1 | u2 | u3) != 0):
        w0, w1, w2, w3 = tl.philox(seed, low, high, plane, 0)
        one = (rest.to(tl.int32) >> 31).to(tl.uint32)  # the highest bit, in all lanes
        b0, u0 = _decide(w0, b0, u0, one)
        b1, u1 = _decide(w1, b1, u1, one)
        b2, u2 = _decide(w2, b2, u2, one)
        b3, u3 = _decide(w3, b3, u3, one)
        rest <<= 1
        plane += 1
    return b0, b1, b2, b3


@triton.jit
def _words(group, seed, limit):
    """`_below`, with the words of a group side by side: (…) -> (…, 2, 2)."""
    b0, b1, b2, b3 = _below(group, seed, limit)
    return tl.join(tl.join(b0, b2), tl.join(b1, b3))


@triton.jit
def _program_words(group, seed, limit, GROUPS: tl.constexpr):
    """The words of this program's groups, the first program's from ``group`` on: (4·GROUPS,)."""
    first = group.to(tl.uint64) + tl.program_id(0).to(tl.uint64) * GROUPS
    return _words(first + tl.arange(0, GROUPS).to(tl.uint64), seed, limit).reshape(4 * GROUPS)


@triton.jit
def _bits(words):
    """The bits of words, lowest first: (…) -> (…, 32) bool."""
    return (tl.expand_dims(words, -1) >> tl.arange(0, 32).to(tl.uint32)) & 1 != 0


@triton.jit
def _places(n, offset, GROUPS: tl.constexpr):
    """This program's units: the first index, the places from there, and the range [low, high) that exists."""
    first = tl.program_id(0).to(tl.int64) * (128 * GROUPS) - offset
    place = tl.arange(0, 4 * GROUPS)[:, None] * 32 + tl.arange(0, 32)[None, :]
    low = tl.maximum(-first, 0).to(tl.int32)
    high = tl.minimum(n - first, 128 * GROUPS).to(tl.int32)
    return first, place, low, high


@triton.jit
def _number(scale):
    """A float64 from its bits: Triton would pass the number itself in single precision."""
    return scale.to(tl.int64).to(tl.float64, bitcast=True)


@triton.jit(do_not_specialize=VARYING)
def _mask_kernel(out, n, offset, group: tl.uint64, seed: tl.uint64, limit: tl.uint64, GROUPS: tl.constexpr):
    """True where kept."""
    first, place, low, high = _places(n, offset, GROUPS)
    kept = _bits(_program_words(group, seed, limit, GROUPS)).to(tl.uint8)
    if (low == 0) & (high == 128 * GROUPS):  # without a condition, in vectors
        tl.store(out + first + place, kept)
    else:
        tl.store(out + first + place, kept, mask=(place >= low) & (place < high))


@triton.jit(do_not_specialize=VARYING)
def _dropout_kernel(
    x, out, n, offset, group: tl.uint64, seed: tl.uint64, limit: tl.uint64, scale: tl.int64,
    GROUPS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """x·scale where kept, 0 where dropped."""
    first, place, low, high = _places(n, offset, GROUPS)
    x += first
    out += first
    whole = (low == 0) & (high == 128 * GROUPS)
    if whole:  # noqa: SIM108 (Triton knows no "a if whole else b")
        value = tl.load(x + place)
    else:
        value = tl.load(x + place, mask=(place >= low) & (place < high), other=0)
    kept = _bits(_program_words(group, seed, limit, GROUPS))
    y = tl.where(kept, value.to(WIDE) * _number(scale).to(WIDE), 0).to(value.dtype)
    if whole:
        tl.store(out + place, y)
    else:
        tl.store(out + place, y, mask=(place >= low) & (place < high))


@triton.jit(do_not_specialize=VARYING)
def _seeds_kernel(out, group: tl.uint64, seed: tl.uint64, limit: tl.uint64, GROUPS: tl.constexpr):
    """The seeds of blocks, a bit each: 1 where one falls."""
    word = tl.program_id(0).to(tl.int64) * (4 * GROUPS) + tl.arange(0, 4 * GROUPS)
    tl.store(out + word, ~_program_words(group, seed, limit, GROUPS))


@triton.jit
def _strips(strips, depth, height, width, STRIPS: tl.constexpr, INDEX: tl.constexpr):
    """This program's strips of 32 places of a row: the sample; then each one's row, channel, z, y, first x.

    A sample has ``strips`` of them; those beyond do not exist. The last strip of a row may be cut off.
    """
    programs = (strips + STRIPS - 1) // STRIPS
    across = (width + 31) // 32
    sample = (tl.program_id(0) // programs).to(tl.int64)
    strip = (tl.program_id(0) % programs).to(INDEX) * STRIPS + tl.arange(0, STRIPS)
    row = strip // across
    plane = row // height
    return sample, strip < strips, row, plane // depth, plane % depth, row % height, strip % across * 32


@triton.jit
def _window(seeds, size, at, inside):
    """The 64 bits from bit ``at`` on, of ``size`` words of 64; 0 beyond them, and where not ``inside``."""
    word, shift = at >> 6, (at & 63).to(tl.uint64)
    low = tl.load(seeds + word, mask=inside & (word >= 0) & (word < size), other=0).to(tl.uint64)
    high = tl.load(seeds + word + 1, mask=inside & (word >= -1) & (word < size - 1), other=0).to(tl.uint64)
    return (low >> shift) | (high << (63 - shift) << 1)


@triton.jit
def _fallen(seeds, size, skip, exists, map_, z, y, x, depth, height, width, deep, high, wide):
    """Which of the 32 places from x on lie under a block of deep × high × wide, as bits: (S,) uint32.

    A window of 64 seeds ends with the strip. It is or-ed over all rows whose blocks reach here and clipped
    to a row; then each seed falls on the places from its own on. Blocks wider than 32 take several windows.
    """
    fallen = tl.zeros_like(x).to(tl.uint32)
    seeds_wide = width - wide + 1
    for back in range(0, wide, 32):
        begin = x - 32 - back
        reaches = exists & (begin > -64) & (begin < seeds_wide)
        window = tl.zeros_like(x).to(tl.uint64)
        for i in range(0, deep):
            for j in range(0, high):
                z_, y_ = z - i, y - j
                inside = reaches & (z_ >= 0) & (z_ <= depth - deep) & (y_ >= 0) & (y_ <= height - high)
                row = (map_ * (depth - deep + 1) + z_) * (height - high + 1) + y_
                window |= _window(seeds, size, skip + row * seeds_wide + begin, inside)
        before = tl.minimum(tl.maximum(-begin, 0), 63).to(tl.uint64)
        beyond = tl.minimum(tl.maximum(begin + 64 - seeds_wide, 0), 63).to(tl.uint64)
        window = window >> before << before << beyond >> beyond
        reach = 1
        while reach < tl.minimum(wide - back, 32):
            step = tl.minimum(reach, tl.minimum(wide - back, 32) - reach)
            window |= window << step.to(tl.uint64)
            reach += step
        fallen |= (window >> 32).to(tl.uint32)
    return fallen


@triton.jit
def _ones(word):
    """How many bits of a word are set."""
    word = (word & 0x55555555) + (word >> 1 & 0x55555555)
    word = (word & 0x33333333) + (word >> 2 & 0x33333333)
    word = (word & 0x0F0F0F0F) + (word >> 4 & 0x0F0F0F0F)
    word += word >> 8
    return (word + (word >> 16) & 63).to(tl.int32)


@triton.jit(do_not_specialize=VARYING)
def _survivors_kernel(
    seeds, counts, size, skip, strips, maps, depth, height, width, deep, high, wide,
    STRIPS: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """The kept places of each sample's mask, added to ``counts``."""
    sample, exists, _, channel, z, y, x = _strips(strips, depth, height, width, STRIPS, INDEX)
    map_ = sample * maps + channel
    fallen = _fallen(seeds, size, skip, exists, map_, z, y, x, depth, height, width, deep, high, wide)
    beyond = tl.minimum(tl.maximum(x + 32 - width, 0), 31).to(tl.uint32)
    kept = tl.where(exists, _ones(~fallen << beyond), 0)
    tl.atomic_add(counts + sample, tl.sum(kept).to(tl.int64))


@triton.jit(do_not_specialize=VARYING)
def _drop_block_kernel(
    seeds, counts, size, skip, strips, maps, depth, height, width, deep, high, wide, values, out,
    STRIPS: tl.constexpr, INDEX: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """x·(places of the sample's mask)/(its kept places) where kept, 0 where dropped."""
    sample, exists, row, channel, z, y, x = _strips(strips, depth, height, width, STRIPS, INDEX)
    first = sample * (strips // ((width + 31) // 32)) * width
    place = first + row.to(tl.int64)[:, None] * width + (x[:, None] + tl.arange(0, 32)[None, :])
    inside = exists[:, None] & (x[:, None] + tl.arange(0, 32)[None, :] < width)
    value = tl.load(values + place, mask=inside, other=0)
    map_ = sample * maps + tl.minimum(channel, maps - 1)  # a map for each channel, or one for all
    fallen = _fallen(seeds, size, skip, exists, map_, z, y, x, depth, height, width, deep, high, wide)
    places = (maps.to(tl.int64) * depth * height * width).to(tl.float64)
    scale = places / tl.maximum(tl.load(counts + sample), 1).to(tl.float64)
    result = tl.where(_bits(fallen), 0, value.to(WIDE) * scale.to(WIDE))
    tl.store(out + place, result.to(value.dtype), mask=inside)


@triton.jit
def _tile(unit, seed, limit, ALIGNED: tl.constexpr):
    """Kept bits of the 128 units from each one on: (R,) uint64 -> (R, 4, 32) bool.

    ALIGNED: all begin a group. Else they lie in two, and the words are shifted together.
    """
    R: tl.constexpr = unit.shape[0]
    if ALIGNED:
        words = _words(unit >> 7, seed, limit).reshape(R, 4)
    else:
        pair = (unit >> 7)[:, None] + tl.arange(0, 2)[None, :].to(tl.uint64)
        eight = _words(pair, seed, limit).reshape(R, 8)
        offset = (unit & 127).to(tl.int32)[:, None]
        word, shift = (offset >> 5) + tl.arange(0, 4)[None, :], (offset & 31).to(tl.uint32)
        words = tl.gather(eight, word, 1) >> shift | (tl.gather(eight, word + 1, 1) << (31 - shift) << 1)
    return _bits(words)


@triton.jit
def _unit(start, sample, output, input_, outputs, inputs):
    """The unit of a weight in a sample's mask."""
    row = sample.to(tl.uint64) * outputs + output.to(tl.uint64)
    return start.to(tl.uint64) + row * inputs + input_


@triton.jit(do_not_specialize=VARYING)
def _connect_kernel(
    x, weight, y, samples, outputs, inputs, start: tl.uint64, seed: tl.uint64, limit: tl.uint64,
    scale: tl.int64, ALIGNED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """y_n = scale·(R_n * W) x_n: a sample and some outputs."""
    n = (tl.program_id(0) % samples).to(tl.int64)
    o = (tl.program_id(0) // samples).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, 4)[:, None] * 32 + tl.arange(0, 32)[None, :]
    total = tl.zeros([ROWS, 4, 32], WIDE)
    for i in range(0, inputs, 128):
        kept = _tile(_unit(start, n, o, i, outputs, inputs), seed, limit, ALIGNED)
        inside = (i + lane < inputs)[None, :, :]
        at = o[:, None, None] * inputs + (i + lane)[None, :, :]
        w = tl.load(weight + at, mask=(o < outputs)[:, None, None] & inside, other=0).to(WIDE)
        v = tl.load(x + n * inputs + (i + lane)[None, :, :], mask=inside, other=0).to(WIDE)
        total += tl.where(kept, w, 0) * v
    result = tl.sum(tl.sum(total, 2), 1) * _number(scale).to(WIDE)
    tl.store(y + n * outputs + o, result.to(y.dtype.element_ty), mask=o < outputs)


@triton.jit(do_not_specialize=VARYING)
def _connect_x_kernel(
    grad, weight, grad_x, samples, outputs, inputs, start: tl.uint64, seed: tl.uint64, limit: tl.uint64,
    scale: tl.int64, ALIGNED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """∂L/∂x_n = scale·(R_n * W)ᵀ g_n: a sample and 128 inputs."""
    n = (tl.program_id(0) % samples).to(tl.int64)
    i = tl.program_id(0) // samples * 128
    lane = i + tl.arange(0, 4)[:, None] * 32 + tl.arange(0, 32)[None, :]
    total = tl.zeros([ROWS, 4, 32], WIDE)
    for first in range(0, outputs, ROWS):
        o = (first + tl.arange(0, ROWS)).to(tl.int64)
        kept = _tile(_unit(start, n, o, i, outputs, inputs), seed, limit, ALIGNED)
        inside = (o < outputs)[:, None, None] & (lane < inputs)[None, :, :]
        w = tl.load(weight + o[:, None, None] * inputs + lane[None, :, :], mask=inside, other=0).to(WIDE)
        g = tl.load(grad + n * outputs + o, mask=o < outputs, other=0).to(WIDE)
        total += tl.where(kept, w, 0) * g[:, None, None]
    result = tl.sum(total, 0) * _number(scale).to(WIDE)
    tl.store(grad_x + n * inputs + lane, result.to(grad_x.dtype.element_ty), mask=lane < inputs)


@triton.jit(do_not_specialize=VARYING)
def _connect_weight_kernel(
    grad, x, grad_weight, samples, outputs, inputs, start: tl.uint64, seed: tl.uint64, limit: tl.uint64,
    scale: tl.int64, ALIGNED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """∂L/∂W = scale·Σ_n R_n * (g_n x_nᵀ): some outputs by 128 inputs."""
    across = (inputs + 127) // 128
    i = tl.program_id(0) % across * 128
    o = (tl.program_id(0) // across).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    lane = i + tl.arange(0, 4)[:, None] * 32 + tl.arange(0, 32)[None, :]
    total = tl.zeros([ROWS, 4, 32], WIDE)
    for sample in range(0, samples):
        n = tl.cast(sample, tl.int64)
        kept = _tile(_unit(start, n, o, i, outputs, inputs), seed, limit, ALIGNED)
        g = tl.load(grad + n * outputs + o, mask=o < outputs, other=0).to(WIDE)
        v = tl.load(x + n * inputs + lane, mask=lane < inputs, other=0).to(WIDE)
        total += tl.where(kept, g[:, None, None] * v[None, :, :], 0)
    inside = (o < outputs)[:, None, None] & (lane < inputs)[None, :, :]
    result = (total * _number(scale).to(WIDE)).to(grad_weight.dtype.element_ty)
    tl.store(grad_weight + o[:, None, None] * inputs + lane[None, :, :], result, mask=inside)


def mask(key: Key, n: int, limit: int, start: int, device: Any) -> torch.Tensor:
    """Kept bits of units ``start … start + n − 1``, as `thinned.key.bernoulli`: an (n,) bool tensor."""
    out, groups = torch.empty(n, dtype=torch.bool, device=device), _groups(1)
    args = out.view(torch.uint8), n, start % GROUP, start // GROUP, key.seed, limit
    _launch(_mask_kernel, _programs(n, start, groups), *args, GROUPS=groups)
    return out


def dropout(x: torch.Tensor, key: Key, limit: int, scale: float, start: int = 0) -> torch.Tensor:
    """x·scale where kept, 0 where dropped, by element. The gradient is the same function of the gradient."""
    x = x.detach().contiguous()
    out, n, groups = torch.empty_like(x), x.numel(), _groups(x.element_size())
    args = x, out, n, start % GROUP, start // GROUP, key.seed, limit, _as_bits(scale)
    _launch(_dropout_kernel, _programs(n, start, groups), *args, GROUPS=groups, WIDE=_wide(x))
    return out


def takes(how: Map) -> bool:
    """Whether `apply` knows a map: dropout by element."""
    return isinstance(how, Select) and how.inner == 1 and how.shift == how.fill == 0.0


def apply(x: torch.Tensor, how: Select, words: Words) -> torch.Tensor:
    """The map of x, where `takes` says so."""
    return dropout(x, key_of(words), how.limit, how.scale, how.start)


def drop_block(x: torch.Tensor, blocks: Blocks) -> torch.Tensor:
    """(N, C, *spatial) -> same: blocks of places dropped, each sample divided by its kept share.

    The seeds are held for the call, a bit each: there is one for each position at which a whole block fits.
    """
    key, limit, start, sizes, per_channel = blocks
    x = x.detach().contiguous()
    out, (samples, channels, *space), block = torch.empty_like(x), x.shape, list(sizes)
    space, block = [1] * (3 - len(space)) + space, [1] * (3 - len(block)) + block
    maps = channels if per_channel else 1
    n = samples * maps * math.prod(size - wide + 1 for size, wide in zip(space, block, strict=True))
    groups, programs = _groups(1), _programs(n, start, _groups(1))
    seeds = torch.empty(programs * groups * 2, dtype=torch.int64, device=x.device)
    counts = torch.zeros(samples, dtype=torch.int64, device=x.device)
    _launch(_seeds_kernel, programs, seeds.view(torch.int32), start // GROUP, key.seed, limit, GROUPS=groups)

    def launch(kernel: Any, maps_: int, *tensors: torch.Tensor, **constants: Any) -> None:
        strips = maps_ * space[0] * space[1] * -(-space[2] // 32)
        args = seeds, counts, seeds.numel(), start % GROUP, strips, maps, *space, *block, *tensors
        counted = {"STRIPS": STRIPS, "INDEX": _index(strips)}
        _launch(kernel, samples * -(-strips // STRIPS), *args, **counted, **constants)

    launch(_survivors_kernel, maps)
    launch(_drop_block_kernel, channels, x, out, WIDE=_wide(x))
    return out


def connect(
    which: int, a: torch.Tensor, b: torch.Tensor, sizes: tuple[int, int, int], draw: Draw
) -> torch.Tensor:
    """`thinned.kernels.connect.product`, of a and b; ``sizes`` is (N, out, in). Masks are made inside."""
    n, rows, columns = sizes
    across, down = -(-columns // GROUP), -(-rows // ROWS.value)
    kernel = (_connect_kernel, _connect_x_kernel, _connect_weight_kernel)[which]
    out = a.new_zeros(((n, rows), (n, columns), (rows, columns))[which])
    _product(kernel, (n * down, n * across, down * across)[which], a, b, out, sizes, draw)
    return out


def _product(
    kernel: Any, programs: int, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor,
    sizes: tuple[int, int, int], draw: Draw,
) -> None:  # fmt: skip
    """Launch one of the three products of DropConnect, ``out`` of a and b; p = 1 leaves its zeros."""
    if draw.limit == 0 or 0 in sizes:
        return
    args = draw.start, draw.key.seed, draw.limit, _as_bits(draw.scale)
    aligned = sizes[2] % GROUP == 0 and draw.start % GROUP == 0
    a, b = a.detach().contiguous(), b.detach().contiguous()
    _launch(kernel, programs, a, b, out, *sizes, *args, ALIGNED=aligned, WIDE=_wide(a))


def _launch(kernel: Any, programs: int, *args: Any, **constants: Any) -> None:
    """Run ``programs`` programs, of one warp each, on the device of the first tensor."""
    if programs:
        with torch.cuda.device_of(args[0]):
            kernel[(programs,)](*args, num_warps=1, enable_fp_fusion=True, **constants)


def _programs(n: int, start: int, groups: int) -> int:
    """The number of programs, of ``groups`` groups each, for units ``start … start + n − 1``."""
    return -(-(start % GROUP + n) // (GROUP * groups)) if n else 0


def _groups(itemsize: int) -> int:
    """The groups of a program: one a thread, or fewer where a thread would have more than 256 bytes."""
    return min(32, 64 // itemsize)


def _index(strips: int) -> Any:
    """The integer type that counts the strips of a sample."""
    return tl.int32 if strips < 2**31 - STRIPS else tl.int64


def _wide(x: torch.Tensor) -> Any:
    """The type in which numbers of this dtype are computed."""
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def _as_bits(scale: float) -> int:
    """The bits of a float64, for `_number`."""
    return int(struct.unpack("<q", struct.pack("<d", scale))[0])
