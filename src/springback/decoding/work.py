"""What decoding took: the statistics of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Work:
    """What was done.  Calls are forward passes, whatever number of rows and positions they have.

    ``tokens``: in the answers.  ``contested``: positions where more than one token was plausible.
    ``joint_calls``: passes that ran both models' rows in one batch (adapters on one base); they
    count as a call of each.  ``deferred``: tokens taken before the amateur had its say;
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
