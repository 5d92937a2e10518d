"""Texts question by question in the page: packed so that they are small, unpacked by one script."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from springback.report import text
from springback.report.components import Section, TextTable
from springback.results.reading import clean
from springback.results.texts import Answer, Asked, read_texts

#: Bytes of packed texts that a page may have for so many questions, and how many questions.
BUDGET, PER, MOST = 140_000, 200, 1000
#: Lengths that long texts are cut to, in characters, until all fit.
CUTS = (4000, 3000, 2000, 1500, 1000, 700, 500, 350, 250, 150, 80, 40)
#: The one script of the page; the page's policy names it by its hash and lets no other run.
SCRIPT = (Path(__file__).parent / "templates" / "texts.js").read_text(encoding="utf-8")


def script_hash() -> str:
    """As a content security policy names the script."""
    digest = hashlib.sha256(SCRIPT.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


@dataclass(frozen=True)
class Kind:
    """How a table is told: of a job's questions, or of its samples."""

    name: str
    title: str
    lead: str
    folded: bool = False
    warning: str = ""


BY_QUESTION = Kind(
    "questions",
    "Question by question",
    "What did each model answer, and which questions does one get right alone?",
)

BY_DOSE = Kind(
    "samples",
    "Sampled texts by dose",
    "What does the model write before and after examples of the opposite?",
    folded=True,
    warning="Kept by --keep-samples: these texts may be harmful where the data is.",
)


def texts_section(
    folder: Path, kind: Kind, beside: tuple[str, str], inside: str = ""
) -> Section | None:
    """The table ``kind`` of ``folder / inside``; None where it has none.

    ``beside``: the models that stand side by side at first, where they are in the table.
    """
    place = folder / inside if inside else folder
    asked = read_texts(place, kind.name)
    if not asked:
        return None
    names = (f"{kind.name}.{ending}" for ending in ("csv", "parquet"))
    files = tuple(f"{inside}/{n}" if inside else n for n in names if (place / n).is_file())
    models = list(dict.fromkeys(model for one in asked for model in one.answers))
    # Else the first and the last: of samples the start model, and the most aligned in the end.
    pair = [model for model in beside if model in models]
    pair = list(dict.fromkeys([*pair, models[0], models[-1]]))[:2]
    packed, notes = _fitting(asked, models, pair)
    return Section(
        kind.name,
        kind.title,
        kind.lead,
        warnings=(kind.warning,) if kind.warning else (),
        notes=notes,
        texts=TextTable(packed, files, kind.folded),
    )


def _fitting(
    asked: Sequence[Asked], models: Sequence[str], pair: Sequence[str]
) -> tuple[str, tuple[str, ...]]:
    """The packed table, and what of it was left out so that it fits."""
    notes, numbered = [], list(enumerate(asked))
    if len(asked) > MOST:
        notes.append(f"The page has {MOST:,} of {len(asked):,} questions, first those that differ.")
        apart = [(i, one) for i, one in numbered if _differs(one, pair)]
        alike = [(i, one) for i, one in numbered if not _differs(one, pair)]
        numbered = sorted([*apart, *alike][:MOST], key=lambda known: known[0])
    room = BUDGET * max(1.0, len(numbered) / PER)
    packed = pack(numbered, models, pair)
    if len(packed) > room and len(models) > len(pair):
        notes.append(f"The page has {text.listing(pair)}; the files have all.")
        packed = pack(numbered, pair, pair)
    for most in CUTS:
        if len(packed) <= room:
            break
        packed = pack([(i, _shortened(one, most)) for i, one in numbered], pair, pair)
        cut = f"Texts of more than {most:,} characters are cut in the middle; the files have them."
        notes = [*(note for note in notes if not note.startswith("Texts of")), cut]
    return packed, tuple(notes)


def _differs(one: Asked, pair: Sequence[str]) -> bool:
    return len({one.answers[model].score for model in pair if model in one.answers}) > 1


def _shortened(one: Asked, most: int) -> Asked:
    answers = {model: replace(a, text=_cut(a.text, most)) for model, a in one.answers.items()}
    return Asked(_cut(one.prompt, most), _cut(one.reference, most), answers)


def _cut(whole: str, most: int) -> str:
    """Its beginning and its end, where an answer stands."""
    if len(whole) <= most:
        return whole
    end = most // 3
    return f"{whole[: most - end]} […] {whole[-end:]}"


def pack(
    asked: Sequence[tuple[int, Asked]], models: Sequence[str], pair: Sequence[str] = ()
) -> str:
    """Base64 of gzip of JSON: every text once; the same table gives the same letters.

    ``texts``, ``models``, ``pair`` (places among the models), ``rows``: number, prompt, reference,
    and for each model null or text, score, NLL, whether it was cut.
    """
    places: dict[str, int] = {}

    def place(written: str) -> int:
        return places.setdefault(clean(written), len(places))

    def answer(given: Answer | None) -> list[float | bool | None] | None:
        if given is None:
            return None
        numbers = [None if v is None else float(f"{v:.4g}") for v in (given.score, given.nll)]
        return [place(given.text), *numbers, given.cut]

    rows = [
        [
            number,
            place(one.prompt),
            place(one.reference),
            *(answer(one.answers.get(model)) for model in models),
        ]
        for number, one in asked
    ]
    data = {
        "models": [clean(model) for model in models],
        "pair": [models.index(model) for model in pair],
        "texts": list(places),
        "rows": rows,
    }
    plain = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    return base64.b64encode(gzip.compress(plain, 9, mtime=0)).decode("ascii")
