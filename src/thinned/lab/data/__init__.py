"""Data to train on: built in, downloaded, or the user's own. `load` finds a data set by its name or file."""

from thinned.lab.data.dataset import Dataset
from thinned.lab.data.registry import load

__all__ = ["Dataset", "load"]
