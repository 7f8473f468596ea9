"""Evidence on disk: it reads back whole, and damage is one line."""

import numpy as np
import pytest

from thinned.lab.errors import LabError
from thinned.lab.reporting.evidence import NAME, Evidence

FULL = Evidence(
    "rows", ("a", "b"), np.array([0, 1, 1]), {"always": np.full((3, 2), 0.5)},
    {"x": [0.1, 0.2], "y": [0.0, 0.3]},
    "dropout", np.array([2, 0]), np.zeros((2, 3, 3)), [["1", "a"], ["", "b"]], ["x", "kind"],
)  # fmt: skip


@pytest.mark.parametrize("evidence", [FULL, Evidence("images", (), np.array([0.5, 1.5]))])
def test_it_reads_back(tmp_path, evidence):
    evidence.save(tmp_path)
    again = Evidence.load(tmp_path)
    for name, value in vars(evidence).items():
        found = getattr(again, name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(found, value)
        elif name == "baselines":
            assert found.keys() == value.keys()
            for one in value:
                np.testing.assert_array_equal(found[one], value[one])
        else:
            assert (dict(found) if isinstance(value, dict) else type(value)(found)) == value


def test_none_and_damaged(tmp_path):
    assert Evidence.load(tmp_path) is None
    (tmp_path / NAME).write_bytes(b"PK")
    with pytest.raises(LabError, match="damaged"):
        Evidence.load(tmp_path)
