"""What an installed wheel must do, with NumPy alone: python -W error tests/wheel.py [numpy].

Without an argument the C++ kernels must be there. Each level of the instruction set gives the known answers.
"""

import json
import sys
from importlib import metadata, resources
from pathlib import Path

import numpy as np

import thinned
from thinned import kernels

KNOWN = json.loads(Path(__file__).with_name("known_answers.json").read_text(encoding="utf-8"))


def masks() -> None:
    """The masks of contract 1, by the public function."""
    for row in KNOWN["keep_mask"]:
        key, start = thinned.Key(int(row["seed"])), int(row["start"])
        kept = thinned.keep_mask((row["n"],), row["p"], key=key, start=start)
        assert np.packbits(kept, bitorder="little").tobytes().hex() == row["kept_hex"], row


def main() -> None:
    """Check the package that this Python imports."""
    assert "site-packages" in thinned.__file__, f"{thinned.__file__} is no installed package"
    assert metadata.version("thinned") == thinned.__version__
    assert resources.files("thinned").joinpath("py.typed").is_file()
    levels = kernels.extension().levels() if sys.argv[1:] != ["numpy"] else []
    assert levels or sys.argv[1:] == ["numpy"]
    masks()
    y = thinned.dropout(np.ones(4), p=0.5, key=thinned.Key(0))
    assert y.tolist() == [0.0, 2.0, 0.0, 2.0]
    net = thinned.scratch.ThreeLayerNet(8, 16, 16, 3, key=thinned.Key(0), p=0.5)
    assert net.predict(np.ones((2, 8))).shape == (2, 3)
    print(
        f"thinned {thinned.__version__}, Python {sys.version.split()[0]}, kernels {levels or 'NumPy'}: right"
    )


if __name__ == "__main__":
    import thinned.scratch

    main()
