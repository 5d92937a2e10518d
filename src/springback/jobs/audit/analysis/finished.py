"""What an audit says of a finished model: what it has to lose, and how little takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from springback import elasticity
from springback.jobs.audit.analysis.curves import seeds_in_words
from springback.jobs.audit.analysis.findings import Rebounds, outcome
from springback.jobs.audit.finished import is_finished
from springback.jobs.audit.settings import AuditSettings
from springback.results.audit_schema import Audit, Finished
from springback.results.probe_info import ProbeInfo
from springback.results.schema import Part, Verdict


def section(
    settings: AuditSettings,
    words: Mapping[str, ProbeInfo],
    start: Mapping[str, Any],
    rebounds: Rebounds,
) -> Finished | None:
    """What there is to lose; None where something was aligned."""
    if not is_finished(settings):
        return None
    curves = outcome(settings, start, rebounds, words)
    probe = "margin" if curves.what == "the margin" else "behaviour"
    base = start["base"]
    return Finished(
        probe,
        curves.gain,
        words[probe].unit,
        float(start["probes"][probe]["value"]),
        float(base[probe]["value"]) if base else None,
    )


def judge(settings: AuditSettings, analysis: Audit) -> Verdict:
    """One line for the top of the report, and whether there is anything to lose."""
    finished, rebound, undo = analysis.finished, analysis.rebound, analysis.doses_to_undo
    assert finished is not None
    assert rebound is not None
    assert undo is not None
    assert undo.half is not None
    assert rebound.fall[0].mean is not None
    half, share = undo.half.at[0], rebound.share_lost[0].mean
    level = f"{finished.level:+.3f} {finished.unit}"
    if finished.base is not None:
        level += f", the base model's {finished.base:+.3f}"
    seeds = seeds_in_words(len(settings.seeds))
    question, name = "Is there anything to lose?", finished.lost
    if share is None:
        text = f"{name[0].upper()}{name[1:]} is not above 0 ({level}), so nothing can be undone."
        if finished.outcome != "margin":
            text += " What the margin would say takes wanted texts: name some with --align."
        part = Part(question, "no", text)
        return Verdict("nothing to undo", text, (part,))
    dose = max(settings.doses)
    text = (
        f"{dose} opposite examples took {100 * share:.0f} % of {name} ({level}; {seeds}). "
        f"Half of it is lost after: {half.words}."
    )
    label = f"half not undone by {dose} examples"
    if half.mean is not None and half.censored < half.mean.n:
        label = f"half undone by {elasticity.dose_in_words(half.mean)}"
    return Verdict(label, text, (Part(question, "yes", f"As it is: {level}."),))
