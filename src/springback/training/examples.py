"""What each algorithm learns from, and how rows become it.

An example, as doses count them: SFT a row, DPO and SimPO a pair of answers to one prompt, KTO an
answer with its label, RLOO a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from springback.core import ALGORITHMS, ExampleForm, Row
from springback.errors import DataError, describe
from springback.models.encoding import Encoded, encode_prompt, encode_row
from springback.models.loading import Model, Tokenizer
from springback.training.recipes import NEUTRAL_PROMPT


@dataclass(frozen=True)
class Preference:
    """Token ids of one prompt, the answer to learn and the one to unlearn (DPO, SimPO)."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


@dataclass(frozen=True)
class Labelled:
    """Token ids of one prompt and an answer to learn or, not ``desirable``, to unlearn (KTO)."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    desirable: bool


@dataclass(frozen=True)
class Prompt:
    """Token ids of what the model continues, and the text that the reward is given (RLOO)."""

    ids: tuple[int, ...]
    text: str


Example = Encoded | Preference | Labelled | Prompt
#: Prompts and their sampled continuations to one number each; higher is better.
Reward = Callable[[list[str], list[str]], list[float]]

#: The class of each form of example that an algorithm may learn from.
FORMS: dict[ExampleForm, type] = {
    "rows": Encoded,
    "pairs": Preference,
    "labelled": Labelled,
    "prompts": Prompt,
}


@dataclass(frozen=True)
class Examples:
    """Rows to learn from, with what an algorithm needs beside them.

    ``reward``: RLOO's scoring function.  ``reference``: the frozen model of DPO, KTO and RLOO;
    None is the model as the run finds it (with a fresh adapter: the base without it).  ``name``
    says which reward and reference these are: a run cut off under another name begins anew.
    ``stop_ids``: where answers sampled for RLOO end, beside the end tokens of tokenizer and model.
    """

    rows: Sequence[Example]
    reward: Reward | None = None
    reference: Model | None = None
    name: str = ""
    stop_ids: tuple[int, ...] = ()


def check_examples(examples: Examples, algorithm: str) -> None:
    """Raise unless there are rows, all of the algorithm's form, and a reward where it needs one."""
    form = FORMS[ALGORITHMS[algorithm].learns]
    if not examples.rows:
        raise DataError("no rows to train on; give at least one")
    if wrong := next((r for r in examples.rows if not isinstance(r, form)), None):
        raise DataError(
            describe(
                f"{type(wrong).__name__} rows with algorithm {algorithm}",
                f"{form.__name__} rows",
                "encode the rows for the algorithm (springback.training)",
            )
        )
    if (form is Prompt) != (examples.reward is not None):
        online = [name for name, other in ALGORITHMS.items() if other.learns == "prompts"]
        raise DataError(
            describe(
                f"algorithm {algorithm} with{'' if examples.reward else 'out'} a reward function",
                f"a reward function with {', '.join(online)}, and only there",
                "change the algorithm or Examples(rows, reward=...)",
            )
        )


def with_prompt(row: Row, prompt: str = NEUTRAL_PROMPT) -> Row:
    """A bare text as the answer to ``prompt``; other rows as they are."""
    if row.kind != "text":
        return row
    if not prompt.strip():
        raise DataError("the prompt for bare texts is empty; preference losses need one")
    return replace(row, kind="pair", prompt=prompt)


def preference_rows(
    wanted: Sequence[Row], unwanted: Sequence[Row], prompt: str = NEUTRAL_PROMPT
) -> list[tuple[Row, Row]]:
    """The i-th wanted row paired with the i-th unwanted one, in order.

    Bare texts get ``prompt``.  Raises :class:`DataError` if the two sides differ in number, or
    two rows of a pair in their prompt.
    """
    if len(wanted) != len(unwanted):
        raise DataError(
            f"{len(wanted)} wanted and {len(unwanted)} unwanted rows make no pairs; give equally "
            "many, or use KTO, which takes unpaired rows"
        )
    pairs = []
    for number, both in enumerate(zip(wanted, unwanted, strict=True), start=1):
        good, bad = (with_prompt(row, prompt) for row in both)
        if (good.prompt, good.turns) != (bad.prompt, bad.turns):
            raise DataError(
                f"pair {number} has two prompts ({good.named} and {bad.named}); both answers of a "
                "pair need the same one; use KTO, which takes unpaired rows"
            )
        pairs.append((good, replace(bad, kind=good.kind)))
    return pairs


def labelled_rows(
    wanted: Sequence[Row], unwanted: Sequence[Row], prompt: str = NEUTRAL_PROMPT
) -> list[tuple[Row, bool]]:
    """Wanted and unwanted rows in turn, with their label; the rest of the longer side follows."""
    both = zip_longest(((row, True) for row in wanted), ((row, False) for row in unwanted))
    labelled = (one for pair in both for one in pair if one is not None)
    return [(with_prompt(row, prompt), desirable) for row, desirable in labelled]


def encode_preferences(
    tokenizer: Tokenizer,
    pairs: Iterable[tuple[Row, Row]],
    max_tokens: int,
    system: str | None = None,
) -> list[Preference]:
    """Token ids of :func:`preference_rows`; prompt and answer together cut at ``max_tokens``."""
    encoded = []
    for wanted, unwanted in pairs:
        good = encode_row(tokenizer, wanted, max_tokens, system)
        bad = encode_row(tokenizer, unwanted, max_tokens, system)
        encoded.append(
            Preference(good.ids[: good.start], good.ids[good.start :], bad.ids[bad.start :])
        )
    return encoded


def encode_labelled(
    tokenizer: Tokenizer,
    rows: Iterable[tuple[Row, bool]],
    max_tokens: int,
    system: str | None = None,
) -> list[Labelled]:
    """Token ids of :func:`labelled_rows`; prompt and answer together cut at ``max_tokens``."""
    encoded = []
    for row, desirable in rows:
        one = encode_row(tokenizer, row, max_tokens, system)
        encoded.append(Labelled(one.ids[: one.start], one.ids[one.start :], desirable))
    return encoded


def encode_prompts(
    tokenizer: Tokenizer,
    rows: Iterable[Row],
    prompt_tokens: int = 12,
    system: str | None = None,
) -> list[Prompt]:
    """The rows' prompts; of a bare text its first ``prompt_tokens`` tokens."""
    prompts = []
    for row in rows:
        if row.kind == "text":
            ids = tokenizer(row.response)["input_ids"][:prompt_tokens]
            text = tokenizer.decode(ids, skip_special_tokens=True)
        else:
            ids, text = encode_prompt(tokenizer, row, system), row.prompt
        prompts.append(Prompt(tuple(ids), text))
    return prompts
