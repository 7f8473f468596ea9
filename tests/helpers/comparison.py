"""A small comparison: its data, and its configuration."""

from thinned import Key
from thinned.lab.data.dataset import Dataset
from thinned.lab.data.small import spiral
from thinned.lab.training.config import Config

x, y = spiral(30, key=Key(0))
DATA = Dataset("arms", x[::2], y[::2], x[1::2], y[1::2], ("0", "1", "2"), (2,), "Arms.")
BASE = Config(data="arms", fingerprint=DATA.fingerprint, method="dropout", hidden=(8,), epochs=2, batch=15)
