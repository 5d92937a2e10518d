"""The three forms of a drawn chart: an SVG file, a PNG file, and an element of the page."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from springback.report.drawing import PAD, TITLE, WIDTH, style
from springback.report.series import Chart
from springback.report.theme import themed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_ID_LINK = re.compile(r"url\(#([^)]*)\)")
_LONG_DECIMAL = re.compile(r"(\.\d{2})\d+")
#: What was drawn already: the page and the file beside it show the same.
_DRAWN: WeakKeyDictionary[Figure, str] = WeakKeyDictionary()


def standalone_svg(chart: Chart) -> str:
    """The chart as an SVG file of its own: light, with its title, the same bytes every time."""
    if chart.figure not in _DRAWN:
        with style(chart.name):
            out = io.BytesIO()
            chart.figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
        _DRAWN[chart.figure] = out.getvalue().decode("utf-8")
    return _DRAWN[chart.figure]


def png(chart: Chart) -> bytes:
    """The chart as a PNG at three pixels a unit: light, with its title."""
    with style(chart.name):
        out = io.BytesIO()
        chart.figure.savefig(out, format="png", dpi=216, metadata={"Software": None})
    return out.getvalue()


def inline_svg(chart: Chart) -> str:
    """The chart as an ``<svg>`` element for a page that sets the theme's variables.

    Its title strip is cut off and its background left out, its ids begin with the chart's name
    so that no two charts of a page share one, its colours are variables, and nothing in it
    styles the page around it.
    """
    root = ET.fromstring(standalone_svg(chart))
    height = float(root.attrib["viewBox"].split()[3])
    for parent in list(root.iter()):
        for child in list(parent):
            unwanted = child.tag in (f"{_SVG}metadata", f"{_SVG}style")
            if unwanted or child.attrib.get("id") in ("title", "background"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.attrib = dict(
            _inline_attribute(chart.name, key, text) for key, text in element.attrib.items()
        )
        element.tail = None
        if element.tag != "text":
            element.text = None
    root.attrib = {
        "viewBox": f"{PAD} {TITLE - 4} {WIDTH} {height - TITLE + 4 - PAD:g}",
        "role": "img",
        "aria-label": chart.alt,
    }
    return ET.tostring(root, encoding="unicode")


def _inline_attribute(name: str, key: str, text: str) -> tuple[str, str]:
    if key == "id":
        return key, f"{name}-{text}"
    if key == _XLINK:
        return "href", text.replace("#", f"#{name}-", 1)
    if key == "style":
        text = re.sub(r"font-family: [^;]*;? ?", "", text)
        return key, themed(text)
    text = _ID_LINK.sub(rf"url(#{name}-\1)", text)
    return key, _LONG_DECIMAL.sub(r"\1", text.replace("\n", "")) if key == "d" else text
