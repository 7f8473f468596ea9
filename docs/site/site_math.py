"""Equations as MathML: browsers draw it without a script, so that the site needs no network."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml


def inline(self: Any, node: nodes.math) -> None:
    """An equation in a line of text."""
    self.body.append(latex2mathml.tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def block(self: Any, node: nodes.math_block) -> None:
    """An equation that stands alone."""
    text = latex2mathml.tex2mathml(node.astext(), as_block=True)
    self.body.append(f'<div class="math">{text}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Make it known to Sphinx."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
