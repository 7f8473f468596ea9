"""Small networks whose whole ensemble is known, and a bound for means over samples."""

import itertools
import math

import numpy as np

from thinned import Key, scratch

SIGMAS = 6.0  # of a mean over samples: one test in 10⁹ would fail by chance


def rows(n, width, seed=0):
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def small(drop=scratch.Dropout, **kw):
    return scratch.mlp((4, 6, 5, 3), key=Key(3), drop=drop, init=1.0, **kw)


def assert_means(mean, expected, std, samples):
    """Means of samples with that standard deviation; float32 rounds what does not vary."""
    bound = SIGMAS * np.asarray(std) / math.sqrt(samples) + 1e-5
    assert (np.abs(np.asarray(mean) - expected) <= bound).all(), np.max(np.abs(mean - expected) / bound)


def picks_of(n, p):
    """Each set of survivors of n single units that a row may have, and its probability, fewest first."""
    kept = round((1 - p) * n, 9)
    few, more = math.floor(kept), kept - math.floor(kept)
    for k, chance in ((few, 1 - more), (few + 1, more)):
        for s in itertools.combinations(range(n), k) if chance else ():
            yield list(s), chance / math.comb(n, k)


def thin_ensemble(net, x, p):
    """Every pick in both hidden layers of `small`: P (picks,) and probabilities (picks, N, classes)."""
    fc1, fc2, fc3 = (layer for layer in net.children.values() if isinstance(layer, scratch.Linear))
    chances, out = [], []
    for s, of_first in picks_of(6, p):
        h = np.zeros((len(x), 6))
        h[:, s] = np.maximum(x @ fc1.params["weight"].T + fc1.params["bias"], 0)[:, s] / (1 - p)
        for r, of_second in picks_of(5, p):
            g = np.zeros((len(x), 5))
            g[:, r] = np.maximum(h @ fc2.params["weight"].T + fc2.params["bias"], 0)[:, r] / (1 - p)
            z = np.exp(g @ fc3.params["weight"].T + fc3.params["bias"])
            chances.append(of_first * of_second)
            out.append(z / z.sum(1, keepdims=True))
    return np.array(chances), np.array(out)


def as_torch(torch, net):
    """A network by hand as a torch model under the same names."""
    nn, layers = torch.nn, []
    for layer in net.children.values():
        if isinstance(layer, scratch.Linear):
            linear = nn.Linear(layer.n_in, layer.n_out)
            linear.load_state_dict({k: torch.from_numpy(v) for k, v in layer.params.items()})
            layers.append(linear)
        else:
            layers.append(nn.ReLU() if isinstance(layer, scratch.ReLU) else nn.Dropout(layer.p))
    return nn.Sequential(*layers)
