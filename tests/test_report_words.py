"""Numbers as words, and the colours: small promises of the report, checked by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest

from springback.report import text as report_text
from springback.report import theme
from springback.report.audit.doses import half_dose_chart, half_dose_words, share_chart
from springback.results.audit_schema import Curve, HalfDose, Probe
from springback.results.schema import Interval

Vector = npt.NDArray[np.float64]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.09271, "0.0927"),
        (-0.0007, "−0.0007"),
        (1.004, "1.00"),
        (1.5, "1.5"),
        (1234.0, "1,234"),
        (2.1e-9, "2.10e−09"),
        (math.nan, "–"),
        (None, "–"),
    ],
)
def test_a_number_has_three_digits_and_no_idle_zeros(value: float | None, text: str) -> None:
    assert report_text.number(value) == text


def test_a_mean_is_rounded_to_two_digits_of_its_half_width() -> None:
    # Half width 0.0061: its second digit is the fourth decimal.
    found = Interval(0.021378, 0.021378 - 0.0061, 0.021378 + 0.0061, 3)
    assert report_text.both(found) == "0.0214 (0.0153 to 0.0275)"
    # In percentage points the half width is 0.61: the second decimal.
    assert report_text.both(found, 100, sign=True) == "+2.14 (+1.53 to +2.75)"


def test_without_bounds_there_are_no_brackets() -> None:
    assert report_text.both(Interval(0.25, None, None, 1)) == "0.25"
    assert report_text.both(Interval(0.25, 0.2, None, 1)) == "0.25"
    assert report_text.both(None) == "–"


def test_a_rounded_zero_has_no_sign() -> None:
    assert report_text.value(Interval(-0.0001, -0.3, 0.3, 5), sign=True) == "0.00"


def test_the_interval_note_names_the_method_or_why_there_is_none() -> None:
    drawn = Interval(1.0, 0.5, 1.5, 3, "Student's t")
    assert report_text.interval_note([drawn, None], "Bands") == (
        "Bands are 95 % intervals (Student's t)."
    )
    single, equal = Interval(1.0, None, None, 1), Interval(1.0, None, None, 3)
    assert report_text.interval_note([single], "Bands") == "No intervals: there is one value each."
    assert report_text.interval_note([equal], "Bands") == "No intervals: none could be computed."


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(41.2, "41 s"), (252, "4 min 12 s"), (59.6, "1 min 0 s"), (7500, "2 h 5 min"), (None, "")],
)
def test_durations_read_as_people_say_them(seconds: float | None, text: str) -> None:
    assert report_text.duration(seconds) == text


def test_settings_become_dotted_rows_in_their_own_order() -> None:
    given = {"b": {"z": 1, "a": True}, "a": None, "c": [1, 2]}
    assert report_text.flat(given) == [("b.z", "1"), ("b.a", "yes"), ("c", "1 2")]


def probe(start: float | None, mean: tuple[float, ...]) -> tuple[Probe, Curve]:
    curve = Curve((0.0, 16.0, 32.0), mean, None, None, n_pos=64)
    begin = None if start is None else Interval(start, None, None, 1)
    return Probe("Margin", "nats/token", "", begin, (), (curve,)), curve


def one_curve(start: float | None, mean: tuple[float, ...]) -> Probe:
    known, curve = probe(start, mean)
    return replace(known, curves=(curve,))


def test_the_share_left_is_one_when_aligned_and_zero_at_the_start() -> None:
    # From 0.1 to 0.5 is a gain of 0.4; 0.2 has a quarter of it left, 0.0 lies a quarter below.
    chart = share_chart(one_curve(0.1, (0.5, 0.2, 0.0)))
    assert chart is not None
    assert chart.table.rows == (("0", "100"), ("16", "25"), ("32", "\N{MINUS SIGN}25"))


def test_the_band_of_the_share_is_the_margins_in_units_of_the_mean_gain() -> None:
    known, curve = probe(0.1, (0.5, 0.2, 0.0))
    curve = replace(curve, low=(0.4, 0.1, 0.0), high=(0.6, 0.3, 0.0))
    chart = share_chart(replace(known, curves=(curve,)))
    assert chart is not None
    # 0.4 to 0.6 are 0.75 and 1.25 of the gain of 0.4 above 0.1; 0.1 to 0.3 are 0 and 0.5.
    cells = " ".join(cell for row in chart.table.rows for cell in row)
    assert "75 to 125" in cells
    assert "0 to 50" in cells


def test_there_is_no_share_without_a_gain_or_a_start() -> None:
    assert share_chart(one_curve(0.5, (0.5, 0.2, 0.0))) is None
    assert share_chart(one_curve(None, (0.5, 0.2, 0.0))) is None


def test_a_censored_dose_says_what_is_known() -> None:
    assert half_dose_words(HalfDose(64, 87.6, False), 256) == "88"
    assert half_dose_words(HalfDose(64, None, True), 256) == "more than 256"
    assert half_dose_words(HalfDose(64, None, True), None) == "not reached"


def test_where_alignment_gained_nothing_no_dose_is_claimed() -> None:
    nothing = HalfDose(64, None, False)
    assert half_dose_words(nothing, 256) == "no gain to undo"
    assert half_dose_chart([nothing], 256) is None
    chart = half_dose_chart([nothing, HalfDose(128, 40.0, False)], 256)
    assert chart is not None
    assert chart.table.rows == (("64", "no gain to undo"), ("128", "40"))


def linear(colour: str) -> Vector:
    """Linear-light RGB of an sRGB colour, shape [3]."""
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(one: str, two: str) -> float:
    """Contrast ratio of WCAG 2."""
    weights = np.array([0.2126, 0.7152, 0.0722])
    low, high = sorted(float(weights @ linear(c)) + 0.05 for c in (one, two))
    return high / low


def test_contrast_of_black_on_white_is_twenty_one() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)


THEMES = [pytest.param(theme.LIGHT, id="light"), pytest.param(theme.DARK, id="dark")]


@pytest.mark.parametrize("colours", THEMES)
def test_text_and_lines_stand_out_from_their_ground(colours: Mapping[str, str]) -> None:
    """WCAG AA: 4.5 for text, 3 for what a chart is read by."""
    for ground in ("page", "card", "soft"):
        for text in ("ink", "muted", "accent", "good", "bad"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for ground in ("page", "card"):
        for line in theme.SERIES:
            assert contrast(colours[line], colours[ground]) >= 3.0, (line, ground)


#: Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def lab(rgb: Vector) -> Vector:
    """CIE L*a*b* (D65) of linear RGB, shape [3]."""
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("colours", THEMES)
@pytest.mark.parametrize("blindness", BLINDNESS)
def test_series_stay_apart_for_colour_blind_readers(
    colours: Mapping[str, str], blindness: str
) -> None:
    """Colour difference (CIE 1976) of at least 20, ten times what can just be told apart."""
    seen = {s: lab(BLINDNESS[blindness] @ linear(colours[s])) for s in theme.SERIES}
    for one, two in combinations(theme.SERIES, 2):
        assert np.linalg.norm(seen[one] - seen[two]) >= 20, (one, two)


def test_each_light_colour_names_one_role_and_dark_has_the_same_roles() -> None:
    assert len(set(theme.LIGHT.values())) == len(theme.LIGHT)
    assert theme.LIGHT.keys() == theme.DARK.keys()


def test_colour_and_marker_together_do_not_repeat_before_forty_two() -> None:
    pairs = {theme.series(i) for i in range(42)}
    assert len(pairs) == 42
    assert theme.series(42) == theme.series(0)
