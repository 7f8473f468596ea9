"""`stochastic-depth`: dropping whole residual branches, and the time that this saves."""

from __future__ import annotations

from thinned.lab.grids import residual_net
from thinned.lab.grids.grid import Group, error
from thinned.lab.reporting.summary import Stat
from thinned.lab.reporting.wording import stat_text
from thinned.lab.storage.run import Stored


def seconds(runs: list[Stored]) -> float:
    """Mean seconds of training."""
    return Stat.of([run.seconds for run in runs if run.status == "done"]).mean


def headline(groups: Group) -> str:
    """Test errors, and the time in relation to training without dropping."""
    none, path = (list(groups[name]) for name in ("none", "branches, up to p = 0.5"))
    if not error(none).n or not error(path).n:
        return ""
    return (
        f"Test error {stat_text(error(path))} % with dropped branches against {stat_text(error(none))} % "
        f"without, in {100 * seconds(path) / seconds(none):.0f} % of the time."
    )


EXPERIMENT = residual_net.ImageGrid(
    name="stochastic-depth",
    place=170,
    title="Dropping whole residual branches",
    summary="A residual network without dropping, and with residual branches dropped per sample, the last "
    "one with p = 0.5. The paper finds a lower error in less time, because dropped branches are not "
    "computed.",
    source="Huang et al. 2016, arXiv:1603.09382",
    systems=[
        residual_net.NONE,
        residual_net.ELEMENTS,
        residual_net.system("branches, up to p = 0.5", drop="path", rate=0.5),
    ],
    headline=headline,
).experiment()
