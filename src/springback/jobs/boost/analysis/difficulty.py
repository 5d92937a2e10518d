"""What a boost reports beside its method table: effect by difficulty, and error diagnostics."""

from __future__ import annotations

from collections.abc import Mapping

from springback.core import Row, Slice, content_hash
from springback.data import content_key
from springback.jobs.boost.analysis.logit_errors import Reference, diagnose
from springback.jobs.boost.analysis.seeds import Answers, SeedResult, by_difficulty
from springback.jobs.boost.arm import Arm
from springback.jobs.boost.checks import Data
from springback.jobs.boost.scoring import Scoring
from springback.jobs.boost.search import Tried
from springback.results.boost_schema import Diagnostics, Difficulty


def further(
    job: Scoring,
    arms: Mapping[str, Arm],
    tested: Mapping[str, Tried],
    data: Data,
    reference: Reference | None,
) -> tuple[Difficulty, Diagnostics | None]:
    """``difficulty`` and ``diagnostics`` of the analysis; the latter None without ``reference``.

    Errors are measured on the validation questions' solutions: the test set is not looked at to
    predict what it will show.
    """
    result = seed_result(job.settings.seed, arms, tested, data.test)
    diagnostics = diagnose(job, arms, data.validation, reference) if reference else None
    bins = list(job.settings.difficulty) or 3
    return by_difficulty([result], bins), diagnostics


def size_of(row: Row) -> float:
    """How hard a question is taken to be: characters of its reference solution, as in paper B."""
    return float(len(row.response or row.answer or ""))


def seed_result(
    seed: int, arms: Mapping[str, Arm], tested: Mapping[str, Tried], test: Slice
) -> SeedResult:
    """One seed's answers, question by question."""
    plain = arms["fine-tuned"].key()
    return SeedResult(
        seed,
        tuple(content_hash([content_key(row), row.answer])[:16] for row in test.rows),
        tuple(map(size_of, test.rows)),
        {
            name: Answers(
                arms[name].mu,
                arms[name].lam,
                tuple(map(float, tried.correct)),
                tried.nll,
                arms[name].key() == plain,
                tried.cut_share,
                tried.letters.probability if tried.letters else (),
            )
            for name, tried in tested.items()
        },
    )
