"""A result says where and how it was made, and names no folder of this machine."""

import dataclasses
import sys

import numpy as np
from helpers.comparison import BASE, DATA

from thinned.lab.storage import provenance
from thinned.lab.training import train


def test_commands_name_no_folders_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments = [
        "thinned",
        "compare",
        f"--data={tmp_path / 'a' / 'mine.npz'}",
        "--out",
        "/elsewhere/deep/runs",
        "-x",
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    assert provenance.command() == "thinned compare --data=a/mine.npz --out runs -x"


def test_commands_name_no_url(monkeypatch):
    words = ["thinned", "compare", "--out=s3://key:secret@bucket/deep/runs", "--ray", "ray://host:10001"]
    monkeypatch.setattr(sys, "argv", words)
    assert provenance.command() == "thinned compare --out=runs --ray ray://host:10001"


def test_a_result_says_where_it_was_made(tmp_path):
    about = train.train(dataclasses.replace(BASE, epochs=1), DATA, tmp_path).result["about"]
    assert set(about) == {"machine", "python", "numpy", "thinned", "commit", "threads", "command"}
    assert about["threads"] >= 1
    assert about["numpy"] == np.__version__
