"""Whose compression rate moves: along the examples of a trajectory, and for each of them."""

from __future__ import annotations

from collections.abc import Sequence

from springback.report import figure, text
from springback.report.components import Section, there
from springback.report.figure import Axis, Caption, Chart, Plot, Series
from springback.results.audit_schema import RateFit, RatePath, Rates, RateSet

TITLES = {
    "pretraining": "like pre-training",
    "aligning": "aligning",
    "perturbing": "perturbing",
}
#: Slopes are for each example in the file; a thousandth of a bit makes readable numbers.
MILLI = 1000.0


def rates_section(rates: Rates) -> Section | None:
    paths = [path for phase in ("align", "perturb") if (path := rates.path(phase)) is not None]
    charts = there([per_example_chart(paths), *map(path_chart, paths)])
    if not charts:
        return None
    notes = (_start_words(rates.sets, rates.depth), *map(_fit_words, rates.k))
    return Section(
        "rates",
        "Compression rates",
        "Whose rate moves how much per example?",
        charts,
        notes,
        reading="A set's rate is the model's code length for its held-out texts, in bits a token. "
        "k is how many times as far the aligning set's rate moves as that of texts like "
        "pre-training's, the other way, over the first mark: a geometric mean over the seeds.",
    )


def _title(name: str) -> str:
    return TITLES.get(name, name)


def path_chart(path: RatePath) -> Chart | None:
    """Change of the three rates since the trajectory began."""
    align = path.phase == "align"
    since = "the start model" if align else f"the model aligned on {path.n_pos:,} examples"
    return figure.lines(
        Caption(
            "alignment-rates" if align else "rebound-rates-sets",
            "Rates while aligning" if align else "Rates while trained on the opposite",
            f"Since {since}; above 0 = compressed worse.",
        ),
        Plot(
            "change of the rate, bits/token",
            [
                Series(_title(name), moves.change, path.examples, band=0.16)
                for name, moves in path.sets.items()
            ],
            zero=True,
            signed=True,
            equal_decimals=True,
        ),
        Axis("examples that align" if align else "examples of the opposite", head="examples"),
    )


def per_example_chart(paths: Sequence[RatePath]) -> Chart | None:
    """Change of each set's rate for each example, over the first mark of the trajectories."""
    names = []
    for path in paths:
        what = "aligning" if path.phase == "align" else "opposite"
        first = text.plain(path.examples[1]) if len(path.examples) > 1 else "0"
        over = f"set, over the first {first} {what} examples"
        names += [f"{_title(name)} {over}" for name in path.sets]
    moves = [s for path in paths for s in path.sets.values()]
    whole = [text.both(s.per_example, MILLI, sign=True) for s in moves]
    return figure.rows(
        Caption(
            "rebound-rates-each",
            "Whose rate moves how much",
            "Slope from where a trajectory begins to its first mark. The theorem says that under "
            "perturbing examples the aligning set's moves k times as far as the pre-training "
            "set's, the other way.",
        ),
        Plot(
            "0.001 bits/token for each example (left = compressed better)",
            [Series("", [s.first_per_example.scaled(MILLI) for s in moves], join="")],
            name="first mark, 0.001 bits/token for each",
            zero=True,
            signed=True,
        ),
        Axis(
            "0.001 bits/token for each example",
            names,
            "set",
            {"whole trajectory, the same": whole},
        ),
    )


def _fit_words(fit: RateFit) -> str:
    """The fitted k, and what the volumes say where they are known."""
    where = "while aligning" if fit.phase == "align" else "under the opposite"
    words = f"Aligned on {fit.n_pos:,}, {where}, over {text.plain(fit.first.examples)} examples: "
    if fit.first.k is None:
        words += (
            "no k, for the aligning and the pre-training set's rates move opposite ways in "
            f"{100 * fit.first.opposite:.0f} % of the seeds only."
        )
    else:
        words += f"k = {text.both(fit.first.k)}."
    if fit.volumes is not None and fit.phase == "perturb":
        words += f" By volumes {text.number(fit.volumes)}."
    return words


def _start_words(sets: Sequence[RateSet], depth: int) -> str:
    """Rates of the start model, and what is taken off them."""
    each = "; ".join(
        f"{_title(s.name)} ({s.source}, {text.count(s.texts, 'text')}): "
        f"{text.number(s.start.bits_per_byte)} bits/byte, "
        f"rate {text.number(s.start.rate)}, "
        f"normalised {text.number(s.start.normalised)} bits/token (M = {s.leaves:,})"
        for s in sets
    )
    return f"Start model, trees pruned to {text.count(depth, 'token')}: {each}."
