"""What every picture promises."""

import re
import xml.etree.ElementTree as ET


def inside(svg):
    """Marks and texts begin inside the picture."""
    root = ET.fromstring(svg)
    _, _, width, height = map(float, root.get("viewBox").split())
    for element in root.iter():
        for x, y in (("x", "y"), ("cx", "cy"), ("x1", "y1")):
            if element.get(x) and not element.get(x).endswith("%"):
                assert -1 <= float(element.get(x)) <= width + 1, ET.tostring(element)
                assert -1 <= float(element.get(y)) <= height + 1, ET.tostring(element)
    for place in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", svg):
        x, y = map(float, place)
        assert -1 <= x <= width + 1
        assert -1 <= y <= height + 1
