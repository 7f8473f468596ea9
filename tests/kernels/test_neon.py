"""The NEON level gives the bits of the plain one: compiled for ARM, run by an emulator."""

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import thinned

HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "src" / "thinned" / "kernels" / "native"
COMPILER, EMULATOR = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
OPTIONS = ["-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", f"-I{NATIVE}"]  # of CMakeLists.txt
LEVELS = {"plain": [], "neon": ["-DTHINNED_NEON"]}
KERNELS = ("elements", "blocks", "normals")


def compiled(folder, source, name, *options):
    """The object file of a source."""
    out = folder / f"{name}.o"
    subprocess.run([COMPILER, *OPTIONS, *options, "-c", str(source), "-o", str(out)], check=True)
    return out


@pytest.mark.skipif(COMPILER is None, reason="no aarch64-linux-gnu-g++ on this machine")
@pytest.mark.skipif(EMULATOR is None, reason="no qemu-aarch64 on this machine")
def test_neon_gives_the_bits_of_plain(tmp_path):
    """Masks, dropout by elements and rows, DropBlock and normal numbers, over sizes, rates and dtypes."""
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(
                compiled,
                tmp_path,
                NATIVE / f"{kernel}.cpp",
                f"{kernel}-{level}",
                f"-DTHINNED_LEVEL={level}",
                *rest,
            )
            for kernel in KERNELS
            for level, rest in LEVELS.items()
        ]
        jobs.append(pool.submit(compiled, tmp_path, HERE / "neon.cpp", "main", "-DTHINNED_ARM"))
        objects = [str(job.result()) for job in jobs]
    program = str(tmp_path / "neon")
    subprocess.run([COMPILER, "-static", *objects, "-o", program], check=True)
    ran = subprocess.run([EMULATOR, program], capture_output=True, text=True)
    mask, *said = ran.stdout.splitlines()
    assert ran.returncode == 0, said
    assert said == ["1830 cases, 0 differ"]
    key = thinned.Key(17 + (3000000019 << 32))
    assert mask == "".join(map(str, thinned.keep_mask((1000,), 0.1, key=key).astype(np.uint8)))
