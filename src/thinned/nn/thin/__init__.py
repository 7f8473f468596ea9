"""Training on the survivors alone: chains of units, and branches of samples.

`convert` has the public functions. `tracing` traces a model with torch.fx. `find_chains` and `find_branches`
find in its graphs what can be thinned, by `layer_kinds` and `per_sample_rules`. `run_chains` and
`run_branches` compute it, in `passes` of the model. `selection`, `survivor_weights` and `compact_gradient`
hold the survivors' rows and columns of a parameter, and their gradient.
"""

from thinned.nn.thin.convert import Thinning, thin, thinning

__all__ = ["Thinning", "thin", "thinning"]
