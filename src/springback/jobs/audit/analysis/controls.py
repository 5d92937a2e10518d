"""The controls of an audit: their margins along the doses, and the fall beyond them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from springback import elasticity
from springback.jobs.audit.analysis.curves import means_and_ends
from springback.jobs.audit.analysis.findings import Rebounds, branch, outcome
from springback.jobs.audit.settings import AuditSettings
from springback.results.audit_schema import Controls, Curve
from springback.results.probe_info import PROBES, ProbeInfo
from springback.results.schema import Part
from springback.stats import mean_interval


def margins(settings: AuditSettings, rebounds: Rebounds) -> dict[str, dict[int, list[list[float]]]]:
    """Control -> seed -> [branch][dose] of what the findings are about, as it was measured.

    That is the probe that says how far a model is undone: for a finished model without wanted texts
    a score of its answers.  The model as it is at branch point 0 is the control `unaligned`; where
    nothing is aligned, nothing is.
    """
    probe = elasticity.outcome_of(settings.probes)
    names = [name for name in settings.controls if name != "unaligned"]
    if max(settings.n_pos) and ("unaligned" in settings.controls or 0 in settings.n_pos):
        names.insert(0, "unaligned")
    return {
        name: {
            seed: [_control_curve(settings, got, name, n, probe) for n in settings.n_pos]
            for seed, got in rebounds.items()
        }
        for name in names
    }


def control_part(
    settings: AuditSettings,
    start: Mapping[str, Any],
    rebounds: Rebounds,
    left_out: Mapping[str, str],
    words: Mapping[str, ProbeInfo] = PROBES,
) -> Controls | None:
    """The controls' margins along the doses, and the fall beyond them; None without a control."""
    curves = outcome(settings, start, rebounds, words)
    measured = {
        name: outcome(settings, start, rebounds, words, control=values).margins
        for name, values in margins(settings, rebounds).items()
    }
    if not measured and not left_out:
        return None
    doses, dose = (0, *settings.doses), curves.doses[-1]
    return Controls(
        {
            name: tuple(
                Curve(doses, *means_and_ends(list(map(mean_interval, columns))), n_pos=n)
                for n, columns in _columns(settings, name, by_seed)
            )
            for name, by_seed in measured.items()
        },
        elasticity.beyond_controls(curves, measured, dose=dose),
        dict(left_out),
    )


def _columns(
    settings: AuditSettings, name: str, by_seed: Mapping[int, Sequence[Sequence[float]]]
) -> list[tuple[int, list[tuple[float, ...]]]]:
    """``n_pos``, and by dose the values of all seeds; of `unaligned` for 0 alone."""
    sizes = (0,) if name == "unaligned" else settings.n_pos
    return [
        (n, list(zip(*(rows[place] for rows in by_seed.values()), strict=True)))
        for place, n in enumerate(sizes)
    ]


def _control_curve(
    settings: AuditSettings, got: Mapping[str, Any], name: str, n_pos: int, probe: str
) -> list[float]:
    """The probe along the doses; `unaligned` is the start model's at every ``n_pos``."""
    if name == "unaligned":
        along = branch(got, 0)
    else:
        along = {0: branch(got, n_pos)[0], **got["controls"][name][n_pos]}
    return [along[dose][probe]["value"] for dose in (0, *settings.doses)]


def parts(controls: Controls | None) -> list[Part]:
    """Whether the fall is a rebound, which it is beyond the controls alone."""
    answers: list[Part] = []
    if controls is not None and (beyond := controls.beyond) is not None:
        question = f"Is the fall beyond its controls ({', '.join(beyond.against)})?"
        answers.append(Part(question, beyond.label, beyond.sentence))
        if beyond.decay:
            sentences = [
                f"Beyond the {name} control: {decay.sentence[0].lower()}{decay.sentence[1:]}"
                for name in beyond.against
                if (decay := beyond.by_control[name].decay) is not None
            ]
            question = "Does that grow beyond proportional decay?"
            answers.append(Part(question, beyond.decay, " ".join(sentences)))
        if (shuffled := beyond.by_control.get("shuffled")) is not None:
            question = "Does the fall need answers that belong to their prompts?"
            answers.append(Part(question, shuffled.label, shuffled.sentence))
    return answers
