"""`thinned about`: versions, processor, kernels and devices, for a report of a problem."""

from __future__ import annotations

from thinned.cli.options import Json


def about(
    json: Json = False,
) -> None:
    """Print versions, the processor, its kernels and the devices; put it into a report of a problem."""
    from thinned.lab.about import about as found
    from thinned.lab.reporting import terminal

    if json:
        terminal.print_json(found())
        return
    for name, value in found().items():
        print(f"{name}: {value}")
