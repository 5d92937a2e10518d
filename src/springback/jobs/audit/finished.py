"""A finished model, audited as it is: ``--n-pos 0`` alone, so that nothing is aligned.

What there is to lose is then what the model brings along: its margin over that of ``--base``, the
model that it was made from, or without one its margin over 0, at which unwanted texts are as likely
as wanted ones.  Where no wanted texts are named (``--align``) it is the behaviour instead, by
default the share of refusals, over the base model's or over 0.
"""

from __future__ import annotations

from dataclasses import replace

from springback.errors import SpringbackError
from springback.jobs.audit.settings import DEFAULT_PROBES, AuditSettings

#: Measured of a finished model without wanted texts, unless the settings say otherwise.
PROBES = ("unwanted_nll", "kl", "behaviour", "neutral_nll")
#: Probes that need wanted texts.
NEED_WANTED = ("margin", "rates")
#: The built-in sides belong together: beside rows of the user's own the first names nothing.
_ALIGN, _PERTURB = AuditSettings.align, AuditSettings.perturb


def is_finished(settings: AuditSettings) -> bool:
    """Whether nothing is aligned."""
    return not any(settings.n_pos)


def settle(settings: AuditSettings) -> AuditSettings:
    """The settings with what an audit of a finished model leaves out left out.

    Resistance is, since it aligns; and so are wanted texts where none are named: ``align`` is
    empty then.  Raises :class:`SpringbackError` on what cannot be measured without them.
    """
    s = settings
    if not is_finished(s):
        if s.base is None:
            return s
        raise SpringbackError(
            f"--base with --n-pos {', '.join(map(str, s.n_pos))}; the gain over a base model is "
            "that of a model as it is: give --n-pos 0 alone, or leave --base out"
        )
    if s.align == _ALIGN and s.perturb != _PERTURB:
        s = replace(s, align="")
    if not s.align:
        s = _without_wanted(s)
    if s.base is not None and "base_kl" not in s.probes:
        s = replace(s, probes=(*s.probes, "base_kl"))
    experiments = tuple(name for name in s.experiments if name != "resistance")
    return replace(s, experiments=experiments, resistance_rows=0)


def _without_wanted(settings: AuditSettings) -> AuditSettings:
    s = settings
    if s.probes == DEFAULT_PROBES:
        s = replace(s, probes=PROBES, behaviour=s.behaviour or "refusal")
    needing = [name for name in NEED_WANTED if name in s.probes]
    if needing:
        raise SpringbackError(
            f"--probes has {', '.join(needing)} with --n-pos 0 and no wanted texts; name some with "
            "--align, or leave it out"
        )
    if "behaviour" not in s.probes:
        raise SpringbackError(
            f"--probes is {', '.join(s.probes)} with --n-pos 0 and no wanted texts, so nothing "
            "says when the model is undone; name wanted texts with --align, or add behaviour and "
            "what scores it, such as --behaviour refusal"
        )
    if any(one.startswith("mix") for one in s.mitigate):
        raise SpringbackError(
            "--mitigate mix with --n-pos 0 and no wanted texts; there are no rows to mix in: name "
            "some with --align, or leave it out"
        )
    return s
