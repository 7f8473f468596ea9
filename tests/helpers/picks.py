"""Which units each group of rows keeps, written a second time: a unit, a rank, a point on a circle."""

from thinned.key import words


def by_rank(key, n):
    """The indices 0 … n − 1 by (word, index)."""
    drawn = [int(w) for w in words(key, n)]
    return sorted(range(n), key=lambda i: (drawn[i], i))


def panel_size(n):
    """The largest of 1, 2, 4, 8 and 16 that makes 16 panels or more; else 1."""
    return next((s for s in (16, 8, 4, 2) if s * 16 <= n), 1)


def kept_units(n, p, key, groups):
    """For each group a list of n: whether it keeps the unit."""
    size = panel_size(n)
    order, panels = by_rank(key, n), (n + size - 1) // size
    kept = [[False] * n for _ in range(groups)]
    for g in range(groups):
        pair, half = divmod(g, 2)
        own = key.fold_in(pair)
        begin = int(words(own, 1, panels)[0]) + half * (panels * 2**32 // 2)
        for rank, panel in enumerate(by_rank(own, panels)):
            if (rank * 2**32 - begin) % (panels * 2**32) < round((1 - p) * 2**32) * panels:
                for unit in order[panel * size : (panel + 1) * size]:
                    kept[g][unit] = True
    return kept
