"""What can score sampled texts, by the first word of its name, and where it stands.

Loads nothing, so that help and settings may read it.  A new judge is one entry here and one file,
whose function takes the whole spec and returns a :class:`springback.probes.judges.Scorer`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class JudgeInfo:
    """How a judge is named, as help and errors show it, and its function: ``module:function``.

    ``check``: likewise, of a function that loads no library and raises for a spec that is seen to
    be wrong.
    """

    form: str
    load: str
    check: str = ""


_PACKAGE = "springback.probes.judges"
JUDGES = {
    "vader": JudgeInfo("vader", f"{_PACKAGE}.word_lists:vader"),
    "refusal": JudgeInfo("refusal", f"{_PACKAGE}.word_lists:refusal"),
    "hf": JudgeInfo(
        "hf:MODEL[=LABEL][+prompt][+share]",
        f"{_PACKAGE}.classifier:classifier",
        f"{_PACKAGE}.naming:check_classifier",
    ),
    "score": JudgeInfo(
        "score:MODEL",
        f"{_PACKAGE}.score_model:score_model",
        f"{_PACKAGE}.naming:check_score_model",
    ),
    "model": JudgeInfo(
        "model:MODEL[=RUBRIC]",
        f"{_PACKAGE}.chat_model:chat_model",
        f"{_PACKAGE}.naming:check_chat_model",
    ),
    "openai": JudgeInfo(
        "openai:URL#MODEL[=RUBRIC]",
        f"{_PACKAGE}.address:address",
        f"{_PACKAGE}.address:address",  # asks nothing before it scores
    ),
    "python": JudgeInfo("python:FILE.py:FUNCTION", f"{_PACKAGE}.user_function:user_scorer"),
}
#: Questions that the judges ``model`` and ``openai`` can ask, the first where none is named
#: (:mod:`springback.probes.judges.rubrics` has their text).
RUBRICS = ("harmful", "refusal", "positive")
#: A function of a module on Python's path is named without a first word.
MODULE_FORM = "module.path:FUNCTION"
#: The forms of one judge; several are separated by commas.
FORMS = ", ".join([*(info.form for info in JUDGES.values()), MODULE_FORM])


def split_judges(text: str) -> list[str]:
    """The judges that ``text`` names, in order.

    Only a comma behind which another judge begins separates two: a path may hold commas too.
    """
    words = "|".join(map(re.escape, JUDGES))
    begins = rf"(?:{words})\s*(?:[:,]|$)|[A-Za-z_]\w*(?:\.\w+)*:[A-Za-z_]\w*\s*(?:,|$)"
    return [part.strip() for part in re.split(rf",(?=\s*(?:{begins}))", text)]
