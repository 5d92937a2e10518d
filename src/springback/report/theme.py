"""Colours by role, light and dark: the one source of the page's CSS and of the charts.

Charts are drawn in the light colours.  In the page each of them is replaced by
``var(--role, light)``, so one drawing serves both themes; that is why all light colours differ.
"""

from __future__ import annotations

LIGHT = {
    "page": "#fbfbf9",
    "card": "#ffffff",
    "soft": "#f1f3f4",
    "ink": "#1b2128",
    "muted": "#58626d",
    "axis": "#98a1ab",
    "grid": "#e4e7ea",
    "accent": "#1b5e9b",
    "good": "#0b6b4f",
    "bad": "#b03a10",
    "s1": "#3a82d8",
    "s2": "#c96f1e",
    "s3": "#07493e",
    "s4": "#6a2fcb",
    "s5": "#5c4710",
    "s6": "#d41f84",
}

DARK = {
    "page": "#13161a",
    "card": "#191d22",
    "soft": "#20252b",
    "ink": "#e7eaed",
    "muted": "#a3acb6",
    "axis": "#68727d",
    "grid": "#2b3138",
    "accent": "#7fb8ee",
    "good": "#5fcfa6",
    "bad": "#f39a72",
    "s1": "#9cbdf0",
    "s2": "#d5803a",
    "s3": "#4be6b4",
    "s4": "#9a66e4",
    "s5": "#e8cd38",
    "s6": "#e43a88",
}

#: Order in which series take their colours, chosen to stay apart for colour-blind readers.
SERIES = ("s1", "s2", "s3", "s4", "s5", "s6")
#: One more than there are colours, so that colour and marker together repeat only after 42.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def series(index: int) -> tuple[str, str]:
    """Colour (light) and marker of the ``index``-th series."""
    return LIGHT[SERIES[index % len(SERIES)]], MARKERS[index % len(MARKERS)]


def themed(style: str) -> str:
    """A CSS text with every light colour replaced by its variable, the colour as fallback."""
    for role, colour in LIGHT.items():
        style = style.replace(colour, f"var(--{role}, {colour})")
    return style
