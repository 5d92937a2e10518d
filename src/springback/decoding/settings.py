"""How to decode: what every decoder, plain or fast, takes.

The order, which is part of what decoding means here (paper B, section B2, has no penalties):

1. penalties on the expert's logits: repetition, forbidden tokens;
2. plausibility, ``p >= alpha * max p`` of the penalised expert (only with ``lam > 0``);
3. contrast with the amateur's bare logits, anchored at the penalised expert's top token; with a
   ``gate`` only where the penalised expert is uncertain
   (:class:`springback.decoding.contrast.Gate`);
4. the user's logits processors;
5. temperature;
6. top-k, then top-p, then min-p;
7. Gumbel noise and argmax (greedy: argmax after 4, which 5 and 6 do not change).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from springback.decoding import contrast
from springback.errors import SpringbackError, describe
from springback.settings import Sampling

#: ``processor(ids (1, tokens), scores (1, vocabulary)) -> scores``, as in Transformers.
Processor = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class DecodeSettings(Sampling):
    """How to decode.  ``lam`` 0 leaves the amateur out.

    ``stop_ids`` end a row and are not part of its answer; ``forbidden_ids`` are never chosen (with
    the stop ids among them, every answer has ``max_new_tokens`` tokens).  ``stop_strings`` end a
    row with the token that completes one of them, which is part of the answer.

    ``average``: the mean of both models' probabilities in place of contrast, by the plain loop.

    Sampling draws Gumbel noise that does not depend on the batch: a stream for each row, or with
    ``keyed_noise`` noise keyed by (seed, row, position), which any position has without the ones
    before it.  Only keyed noise lets the fast decoder draw the plain loop's tokens.
    """

    lam: float = 0.0
    alpha: float = 0.1
    batch_size: int = 32
    stop_ids: tuple[int, ...] = ()
    forbidden_ids: tuple[int, ...] = ()
    pad_id: int = 0
    stop_strings: tuple[str, ...] = ()
    keyed_noise: bool = False
    gate: contrast.Gate | None = None
    average: bool = False


@dataclass(frozen=True)
class Hooks:
    """What the user plugs in.

    ``processors`` are called once for each chosen token of each row, in order, with that row's own
    ids (no padding); ``on_token(row, token)`` after each token of an answer; ``text_of`` turns
    ids into text and is needed for stop strings.
    """

    processors: tuple[Processor, ...] = ()
    on_token: Callable[[int, int], None] | None = None
    text_of: Callable[[Sequence[int]], str] | None = None


NO_HOOKS = Hooks()


def check(
    settings: DecodeSettings,
    prompts: Sequence[Sequence[int]],
    amateur: object,
    hooks: Hooks,
    expert: object = None,
) -> None:
    """Raise :class:`SpringbackError` on settings that cannot be followed.

    Among them: a prompt and its answer that take more positions than a model was made for.
    """
    s = settings
    contrast.check_settings(s.lam, s.alpha)
    if s.lam > 0 and amateur is None:
        raise SpringbackError(
            f"lambda is {s.lam} but no second model was given; give one or set lambda to 0"
        )
    if s.average and (amateur is None or s.lam > 0):
        given = "one model" if amateur is None else f"lambda {s.lam:g}"
        raise SpringbackError(
            describe(f"the average of two models with {given}", "two models, lambda 0", "change it")
        )
    if any(not p for p in prompts):
        raise SpringbackError("a prompt is empty; every prompt needs at least one token")
    s.check_sampling()
    if s.batch_size < 1:
        raise SpringbackError(describe(f"batch_size = {s.batch_size}", "1 or more", "change it"))
    longest = max(map(len, prompts), default=0)
    for model in (expert, amateur):
        have = _positions(model)
        if have and longest + s.max_new_tokens - 1 > have:
            raise SpringbackError(
                describe(
                    f"a prompt of {longest} tokens and an answer of up to {s.max_new_tokens}",
                    f"{have} positions, which the model has, for both together",
                    "shorten the prompt or ask for fewer new tokens",
                )
            )
    if s.stop_strings and (hooks.text_of is None or not all(s.stop_strings)):
        raise SpringbackError(
            describe(
                f"stop strings {s.stop_strings}",
                "strings that are not empty, with Hooks(text_of=tokenizer.decode)",
                "give both",
            )
        )


def _positions(model: Any) -> int | None:
    """How many tokens a model was made to read; None where its configuration has no limit."""
    config = getattr(model, "config", None)
    limit = getattr(config and config.get_text_config(), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


@dataclass
class Work:
    """What was done.  Calls are forward passes, whatever number of rows and positions they have.

    ``tokens``: in the answers.  ``contested``: positions where more than one token was plausible.
    ``joint_calls``: passes that ran both models' rows in one batch (adapters on one base); they
    count as a call of each.  ``deferred``: tokens taken before the amateur was run;
    ``overruled``: those of them that it then changed.  ``seconds``: of the whole run.
    """

    expert_calls: int = 0
    amateur_calls: int = 0
    joint_calls: int = 0
    amateur_rows: int = 0
    draft_calls: int = 0
    tokens: int = 0
    contested: int = 0
    drafted: int = 0
    accepted: int = 0
    deferred: int = 0
    overruled: int = 0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def contested_share(self) -> float:
        """Contested positions a token; the token that ends a row is not counted as one."""
        return self.contested / max(self.tokens, 1)

    @property
    def acceptance(self) -> float | None:
        """Share of drafts that were taken; None without drafts."""
        return self.accepted / self.drafted if self.drafted else None

    def a_token(self, calls: int) -> float:
        """Calls a token of the answers."""
        return calls / max(self.tokens, 1)

    def summary(self) -> str:
        """One line for people."""
        parts = [
            f"{self.tokens} tokens in {self.seconds:.1f} s ({self.tokens_per_second:.1f} a second)",
            f"contested {self.contested_share:.0%}",
        ]
        if self.acceptance is not None:
            parts.append(f"drafts accepted {self.acceptance:.0%} of {self.drafted}")
        if self.deferred:
            parts.append(f"overruled {self.overruled} of {self.deferred} deferred")
        calls = f"calls a token: expert {self.a_token(self.expert_calls):.2f}"
        calls += f", amateur {self.a_token(self.amateur_calls):.2f}"
        if self.joint_calls:
            calls += f" ({self.a_token(self.joint_calls):.2f} of both at once)"
        if self.draft_calls:
            calls += f", draft model {self.a_token(self.draft_calls):.2f}"
        return "; ".join([*parts, calls])


@dataclass
class Decoded:
    """Answer token ids of every prompt, in order, and what they took.

    ``plain``: the plain loop was used, since a cache cannot be cropped.
    """

    answers: list[list[int]]
    work: Work
    plain: bool = False
