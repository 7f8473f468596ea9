"""Parameters in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.by_hand import fill
from helpers.layers import three_layers

from thinned.scratch import load_params, save_params


def test_save_and_load(tmp_path: Path) -> None:
    net, path = fill(three_layers()), tmp_path / "net.npz"
    save_params(path, net.get_params())
    params = load_params(path)
    assert list(params) == list(net.get_params())
    for name, param, _ in net.named_params():
        assert params[name].dtype == param.dtype
        np.testing.assert_array_equal(params[name], param)
    with np.load(path, allow_pickle=False) as plain:
        assert set(plain.files) == set(params)
    with pytest.raises(TypeError, match="floating-point"):
        save_params(path, {"a": np.zeros(2, int)})
    assert list(load_params(path)) == list(params)  # the earlier file is still there
    assert [p.name for p in tmp_path.iterdir()] == ["net.npz"]


def test_files_that_are_no_parameters(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.npz", tmp_path / "net.npz"
    with pytest.raises(FileNotFoundError, match=r"net\.npz"):
        load_params(path)
    save_params(whole, three_layers().get_params())
    content = whole.read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"net\.npz"):
            load_params(path)
    path.write_text("no archive at all")
    with pytest.raises(ValueError, match=r"net\.npz"):
        load_params(path)
    np.savez(path, fc1=np.array([{"would": "be unpickled"}], dtype=object))
    with pytest.raises(ValueError, match=r"net\.npz"):
        load_params(path)
    np.savez(path, x_train=np.zeros((2, 2), np.uint8))
    with pytest.raises(
        ValueError, match=r"net\.npz must hold parameters, got uint8, not floats, in 'x_train'"
    ):
        load_params(path)
