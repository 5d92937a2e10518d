"""``springback theory``: the elasticity theorem in numbers; the Pareto assumption on data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from springback.core import Measurement, Run, Slice, to_jsonable
from springback.data import load_slice
from springback.errors import SpringbackError, describe
from springback.jobs.papers.theory import pareto, theorem
from springback.jobs.papers.theory.settings import ParetoSettings, TheoremSettings
from springback.progress import Progress, default_progress
from springback.results.places import require_same_kind
from springback.results.reading import read_part
from springback.results.schema import Part, Verdict
from springback.results.store import Store
from springback.results.theory_schema import DataTails, Tail, Theorem, Theory
from springback.results.writing import Clock, Result, check_positive, write_result


def theorem_study(
    settings: TheoremSettings | None = None,
    out: str | Path = "springback-theory-theorem",
    progress: Progress | None = None,
) -> Result:
    """Ratio, sign and departures of the elasticity theorem (A1, 4.2); seconds on one core.

    Writes ``out/result.json`` of kind "theory".  Raises :class:`SpringbackError` for settings
    that make no sense.
    """
    s, clock, progress = (
        settings or TheoremSettings(),
        Clock.start(),
        progress or default_progress(),
    )
    _check_theorem(s)
    tags = {"study": "theorem"}
    with Store(out).locked() as store:
        require_same_kind(store, "theory")
        tables = theorem.analyse(s, progress)
        progress.close()
        return write_result(
            store,
            "theory",
            clock,
            inputs={"settings": to_jsonable(s)},
            measurements=[
                Measurement(
                    name, "none", "leaf masses", getattr(tables.identity, name), unit, tags=tags
                )
                for name, unit in _RESIDUES.items()
            ],
            analysis=Theory(theorem=tables),
            verdict=_theorem_verdict(tables),
        )


#: Of the identity's check, with their units.
_RESIDUES = {
    "residue_at_zero": "bits/symbol",
    "residue": "bits/symbol",
    "difference": "relative",
}


def _check_theorem(s: TheoremSettings) -> None:
    check_positive({"exponent": s.exponent, "draws": s.draws, "depth": s.depth})
    refuse_wrong(
        ("depth", s.depth, "1 to 16", not 1 <= s.depth <= 16),
        ("k", s.k, "one or more above 0", not s.k or min(s.k) <= 0),
        ("l", s.doses, "one or more, 0 or above", not s.doses or min(s.doses) < 0),
        ("exponents", s.exponents, "above 0", not s.exponents or min(s.exponents) <= 0),
        ("overlaps", s.overlaps, "-1 to 1", any(not -1 <= w <= 1 for w in s.overlaps)),
        ("depths", s.depths, f"1 to {s.depth}", any(not 1 <= d <= s.depth for d in s.depths)),
        ("seed", s.seed, "0 or more", s.seed < 0),
    )


def refuse_wrong(*checks: tuple[str, Any, str, bool]) -> None:
    """Raise :class:`SpringbackError` for the first wrong setting.

    ``checks``: flag, what was given, what is allowed, whether it is wrong.
    """
    for name, given, allowed, wrong in checks:
        if wrong:
            raise SpringbackError(f"--{name}: " + describe(given, allowed, "choose others"))


def _theorem_verdict(tables: Theorem) -> Verdict:
    at_zero = [row.kept.median for row in tables.by_k if row.l == 0]
    finite = [row for row in tables.laws if row.law == "pareto" and row.l]
    spread = max(abs(kept - 1) for kept in at_zero if kept is not None)
    shares = "; ".join(
        f"{row.arrangement}{'' if row.premises else ' (outside)'} {row.kept.median:.2g} "
        f"(D2 worse in {row.worse:.0%} of draws)"
        for row in finite
    )
    inside = [row for row in tables.premises if row.inside]
    apart = max(
        abs(value / row.closed - 1)
        for row in tables.premises
        if row.closed
        for value in (row.trees, row.differences)
        if value is not None
    )
    stated = sum(row.as_stated for row in inside)
    parts = (
        Part(
            "Under its premises, is the theorem right?",
            "as stated" if stated == len(inside) else "not as stated",
            "D1 has three disjoint parts of one size, D2 is drawn as the second, D3 as the third, "
            f"l < 1/2: signs as stated in {stated} of {len(inside)} cells, and the ratio is "
            f"-k (1 + 3 l / k) / (1 - 2 l) to {apart:.0e} of it on trees of every law. Past "
            "l = 1/2 the sign flips.",
        ),
        Part(
            "Is the ratio -k at l = 0?",
            "an identity",
            f"Yes, for every law and arrangement, to {spread:.0e}: the residue of the "
            f"balance is {tables.identity.residue_at_zero:.0e} bits. It needs no Pareto law.",
        ),
        Part(
            f"How much of -k is left at l = {tables.at.l:g}?",
            "depends on overlap",
            f"Pareto leaves, k = {tables.at.k:g}, median share of -k: {shares}. "
            "Below 0: both rates move the same way. All but three parts lie outside the theorem's "
            "premises.",
        ),
    )
    return Verdict(
        "as stated under its premises, else ruled by overlap",
        "With three disjoint parts and l < 1/2 ratio and signs are as the theorem states them, "
        "whatever the law of the leaf masses. At l = 0 the ratio -k is an identity for any sets. "
        "Outside the premises, how far it reaches, and whether the alignment set gets worse or "
        "better, is decided by how D3 lies on D2.",
        parts,
    )


def pareto_study(
    settings: ParetoSettings,
    out: str | Path = "springback-theory-pareto",
    progress: Progress | None = None,
) -> Result:
    """Tail fits of n-grams and of the pruned tree's leaves for each data set of ``settings.data``.

    Writes ``out/result.json`` of kind "theory"; a data set that was done is read from its run.
    Raises :class:`SpringbackError` for settings that make no sense, and as
    :func:`springback.data.load_slice` does.
    """
    s, clock, progress = settings, Clock.start(), progress or default_progress()
    _check_pareto(s)
    with Store(out).locked() as store:
        require_same_kind(store, "theory")
        progress.stage("tails", len(s.data))
        parts, records = [], []
        for source in s.data:
            part = load_slice(
                source, fields=s.fields, limit=s.rows or None, seed=s.seed, shuffle=bool(s.rows)
            )
            parts.append(part)
            records.append(DataTails(part.source, len(part), _tails(store, part, s)))
            progress.advance(note=part.source)
        progress.close()
        return write_result(
            store,
            "theory",
            clock,
            inputs={"data": [part.describe() for part in parts], "settings": to_jsonable(s)},
            measurements=[m for data in records for m in _exponents(data)],
            analysis=Theory(pareto=tuple(records)),
            verdict=_pareto_verdict(records),
        )


def _check_pareto(s: ParetoSettings) -> None:
    refuse_wrong(("seed", s.seed, "0 or more", s.seed < 0))
    if not s.data:
        raise SpringbackError(describe("no data", "one data set or more", "name files or hub ids"))
    if s.rows < 0 or s.samples < 0:
        raise SpringbackError(
            describe(f"rows {s.rows}, samples {s.samples}", "0 or more", "choose others")
        )
    if any(n < 1 for n in (*s.ngrams, *s.depths)):
        raise SpringbackError(
            describe(f"n-grams {s.ngrams}, depths {s.depths}", "1 or more", "choose others")
        )


def _tails(store: Store, part: Slice, s: ParetoSettings) -> tuple[Tail, ...]:
    run = Run.of(
        "tails",
        rows=part.content_hash,
        ngrams=list(s.ngrams),
        depths=list(s.depths),
        samples=s.samples,
        seed=s.seed,
    )
    results = store.results(run) or store.commit(run, {"tails": pareto.tails(part, s)})
    return read_part(tuple[Tail, ...], "tails", results["tails"], "theory")


def _exponents(data: DataTails) -> list[Measurement]:
    return [
        Measurement(
            "tail_exponent",
            "none",
            data.data,
            tail.fit.alpha,
            "exponent",
            tags={"study": "pareto", "leaves": tail.leaves, "family": tail.family},
        )
        for tail in data.tails
        if tail.fit is not None
    ]


def _pareto_verdict(records: Sequence[DataTails]) -> Verdict:
    parts = []
    for data in records:
        fits = [(t.leaves, t.fit) for t in data.tails if t.fit is not None]
        none = [t.leaves for t in data.tails if t.fit is None]
        passed = [name for name, fit in fits if not fit.label.startswith("not")]
        text = "; ".join(f"{name}: alpha {fit.alpha:.2f}, {fit.label}" for name, fit in fits)
        if none:
            text += f"; no tail to fit: {', '.join(none)}"
        label = f"{len(passed)} of {len(fits)} pass"
        parts.append(Part(f"{data.data}: Pareto?", label, f"{text}."))
    labels = [t.fit.label for d in records for t in d.tails if t.fit is not None]
    total, kept = len(labels), sum(label.startswith("power law") for label in labels)
    return Verdict(
        f"Pareto not ruled out in {kept} of {total} tails",
        f"Of {total} tails above their own threshold, {kept} are not told apart from a "
        "Pareto law and have no better rival; passing says little where the tail holds few leaves.",
        tuple(parts),
    )
