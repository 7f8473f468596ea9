"""Boltzmann machines of binary units: a state has an energy E, and the probability e^{−E}/Z.

What goes in may be a NumPy array or a torch tensor, and comes back as the same. Parameters are NumPy
arrays; tensors of the CPU work on the same memory. All randomness comes from keys: the same chains on both.

>>> import numpy as np
>>> from thinned import Key
>>> from thinned.scratch import DBN
>>> dbn, x = DBN((6, 8, 4), key=Key(0)), np.eye(6, dtype=np.float32)
>>> errors = dbn.fit(x, key=Key(1), epochs=3, batch=2)  # of reconstruction, machine by machine
>>> net = dbn.to_mlp(10, key=Key(2), p=0.5, input_p=0.2)  # to be finetuned with dropout
>>> net.predict(x).shape
(6, 10)
"""

from thinned.scratch.boltzmann.dbm import DBM
from thinned.scratch.boltzmann.machine import Machine, sample
from thinned.scratch.boltzmann.rbm import DBN, RBM

__all__ = ["DBM", "DBN", "RBM", "Machine", "sample"]
