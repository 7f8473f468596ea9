"""`thinned bench`: our kernels beside their floor (a copy, a product) and their peers, in one process run.

Each file of this folder is a benchmark. It offers ``cases(threads)``, an iterator that makes the data of a
case when the case is asked for; and, where other libraries take part, their names in ``PEERS``. The folder
``harness`` has what all share: `run` picks and runs benchmarks, `measure` times a case, `show` prints the
results, `peers` imports the other libraries.
"""

import pkgutil

from thinned.lab.bench.harness import peers

__all__ = ["NAMES", "peers"]

NAMES = tuple(file.name for file in pkgutil.iter_modules(__path__) if not file.ispkg)
