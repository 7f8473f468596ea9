"""Training on the survivors alone: chains of units, and branches of samples.

`find`: the public functions. `trace`: chains in a torch.fx graph. `paths`: branches that a DropPath drops, by
the rules of `rows`. `layers`: the layers of a chain. `passes`: what belongs to one pass. `weights`: those of
the survivors, and their gradients.
"""

from thinned.nn.thin.convert import Thinning, thin, thinning

__all__ = ["Thinning", "thin", "thinning"]
