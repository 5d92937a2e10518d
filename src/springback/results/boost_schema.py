"""``analysis`` of a boost, and of its methods over several seeds.

Fields with a default may be missing in a file.  The key ``lambda`` is the field ``lam``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from springback.core import ABSENT, Checkpoint
from springback.results.audit_schema import not_in_file
from springback.results.reading import require_length
from springback.stats import Interval

LAMBDA = {"key": "lambda"}


@dataclass(frozen=True)
class Candidate:
    """One strength that a search tried on the validation set.

    Attributes:
        value: mu or lambda; 0 leaves the model as it is
        accuracy: share of 1
        nll: of the reference solutions, nats/token; lower = better; null where it is withheld
        chosen: true for the one that was taken by the setting `choose_by`; ties go to the smaller
            value; with `one_se` the smallest within one standard error of the best
        gain: accuracy expected over the first candidate's, smoothed along them, share of 1;
            absent where the rule does not smooth
        name: of a point of the run, whose ``value`` is its number; absent of strengths
    """

    value: float
    accuracy: Interval | None = None
    nll: Interval | None = None
    chosen: bool = False
    gain: float | None = field(default=None, metadata=ABSENT)
    name: str | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class JointCandidate:
    """One pair of strengths of a joint search.

    Attributes:
        mu: strength of extrapolation
        lam: strength of contrast
        accuracy: share of 1
        nll: of the reference solutions, nats/token; null where it is withheld
        chosen: whether it was taken
    """

    mu: float
    lam: float = field(metadata=LAMBDA)
    accuracy: Interval
    nll: Interval | None
    chosen: bool


@dataclass(frozen=True)
class NarrowedCandidate:
    """A candidate of a search that NLL narrowed, before anything was decoded.

    Attributes:
        value: mu or lambda; absent after a joint search
        mu: of a joint search; else absent
        lam: likewise
        nll: mean, nats/token
        kept: whether it was decoded
    """

    nll: float
    kept: bool
    value: float | None = field(default=None, metadata=ABSENT)
    mu: float | None = field(default=None, metadata=ABSENT)
    lam: float | None = field(default=None, metadata=LAMBDA | ABSENT)


@dataclass(frozen=True)
class PassAtK:
    """Questions that one of k samples answers rightly.

    Attributes:
        k: samples drawn
        share: chance, over questions, share of 1; 1 - C(n - c, k) / C(n, k) where c of n are right
    """

    k: int
    share: Interval


@dataclass(frozen=True)
class SampledScore:
    """Several sampled answers a question: what their accuracy varies by, and pass@k.

    Attributes:
        samples: a question
        questions: variance of the questions' expected scores; unbiased, so it may fall below 0
        sampling: variance of one sample around its question's expected score, mean over questions
        pass_at: for 2, 4, 8, ... and all samples
    """

    samples: int
    questions: float
    sampling: float
    pass_at: tuple[PassAtK, ...]


@dataclass(frozen=True)
class Method:
    """A way to use the two checkpoints, measured once on the test set.

    Attributes:
        method: its name
        mu: strength of extrapolation
        lam: strength of contrast
        accuracy: share of 1
        nll: of the reference solutions, nats/token; null where it is withheld
        difference: accuracy minus the fine-tuned model's, paired by question, share of 1; null for
            the fine-tuned model and for one equal to it
        nll_difference: likewise; below 0 = better
        verdict: `gain` (interval above 0 and ``p`` at most 0.05), `harm` (below 0, likewise),
            `no gain` (inside the tolerance), `undecided`, `same` (equal to the fine-tuned model by
            choice of the validation set)
        cut: answers that reached the limit of new tokens, share of 1; they are graded as far as
            they go
        letter_probability: of choices: probability of the right letter right after the prompt,
            among the letters on offer, share of 1; absent where not all questions are choices
        letter_accuracy: likewise, share of questions whose right letter is the likeliest
        sampled: with several samples a question, of whose means the accuracy is then made; else
            absent
        calls: of a model, for a token of the answer; with `--baselines`, else absent
    """

    method: str
    mu: float | None = None
    lam: float | None = field(default=None, metadata=LAMBDA)
    accuracy: Interval | None = None
    nll: Interval | None = None
    difference: Interval | None = None
    nll_difference: Interval | None = None
    verdict: str | None = None
    cut: float | None = None
    letter_probability: Interval | None = field(default=None, metadata=ABSENT)
    letter_accuracy: Interval | None = field(default=None, metadata=ABSENT)
    sampled: SampledScore | None = field(default=None, metadata=ABSENT)
    calls: int | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class ComparedMethod(Method):
    """A method that differs from the fine-tuned model, with the tests of the difference.

    Attributes:
        won: questions that only this method answers rightly; of scores and samples: higher
        lost: questions that only the fine-tuned model answers rightly, likewise
        p: exact McNemar; of scores between 0 and 1 and means of samples paired t (null where all
            differences are equal)
        nll_p: paired t; null where all differences are equal
        questions_for_a_point: questions that would show a gain of 0.01 with 80 % chance
        p_holm: ``p`` adjusted over all tests of the table
        nll_p_holm: likewise ``nll_p``
        letter_difference: probability of the right letter minus the fine-tuned model's, paired by
            question, share of 1; absent where it was not taken
        letter_p: paired t of it; absent also where all differences are equal
        letter_p_holm: ``letter_p`` adjusted over all tests of the table
        letter_accuracy_difference: of `letter_accuracy`, likewise
    """

    won: int | None = None
    lost: int | None = None
    p: float | None = None
    nll_p: float | None = None
    questions_for_a_point: int | None = None
    p_holm: float | None = field(default=None, metadata=ABSENT)
    nll_p_holm: float | None = field(default=None, metadata=ABSENT)
    letter_difference: Interval | None = field(default=None, metadata=ABSENT)
    letter_p: float | None = field(default=None, metadata=ABSENT)
    letter_p_holm: float | None = field(default=None, metadata=ABSENT)
    letter_accuracy_difference: Interval | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class EqualStep:
    """A contrasted pair against one plain model that goes as far past the fine-tuned one.

    To first order in the weights they are the same (docs/theory.md).

    Attributes:
        step: mu (1 + lambda), the plain model's mu
        difference: accuracy of the pair minus the plain model's, share of 1
        nll_difference: likewise; below 0 = the pair is better; null where NLL is withheld
        label: `same` (the 90 % intervals of accuracy and NLL lie inside the tolerance and 0.002
            nats a token), `contrast adds` (the 95 % interval of accuracy lies above 0), `contrast
            costs` (below), `undecided`
        written: `pair` or `plain`: which of the two the boosted folder is
        text: the same in words
    """

    step: float
    difference: Interval
    nll_difference: Interval | None
    label: str
    written: str
    text: str


@dataclass(frozen=True)
class RunChoice:
    """What was chosen among all points that the checkpoints of a run span.

    Attributes:
        checkpoints: their names, in order
        steps: their training steps, or 0, 1, 2, ... where their names do not say
        norms: length of each update, over the length of the last
        chosen: name of the point, or `EpiCoDe`
        shares: what of each checkpoint the point is; they sum to 1; null for `EpiCoDe`
    """

    checkpoints: tuple[str, ...]
    steps: tuple[float, ...]
    norms: tuple[float, ...]
    chosen: str
    shares: tuple[float, ...] | None


@dataclass(frozen=True)
class PowerRow:
    """Questions that gains take by one kind of score, from the spread of EpiCoDe's differences.

    n = ((z_0.975 + z_0.8) deviation / gain)^2; kinds whose scores do not differ at all are left
    out.

    Attributes:
        score: `greedy answer`, `1 sample`, `4 samples`, `probability of the right letter`,
            `likeliest letter`
        difference: mean over the questions, share of 1
        deviation: standard deviation of the differences, question by question, share of 1
        needed: questions for gains of 1, 2 and 5 points of this score, with 80 % chance
    """

    score: str
    difference: float
    deviation: float
    needed: tuple[int, ...]


@dataclass(frozen=True)
class Power:
    """What the test could see of EpiCoDe against the fine-tuned model.

    Attributes:
        effect: the gain asked about, share of 1
        chance: of showing it
        method: `EpiCoDe`
        discordance: share of the test questions on which the two differ, of samples in their mean
        questions: of the test
        needed: questions that would show the effect with that chance; null where scores of samples
            do not differ
        seen: smallest gain that this test shows with that chance; null: none
        text: the same in words
        table: by kind of score; absent where none differs
    """

    effect: float = 0.01
    chance: float = 0.8
    method: str = "EpiCoDe"
    discordance: float | None = None
    questions: int | None = None
    needed: int | None = None
    seen: float | None = None
    text: str | None = None
    table: tuple[PowerRow, ...] | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class Bin:
    """Questions whose reference solutions are so long.

    Attributes:
        low: shortest, included
        high: longest, included
        questions: how many
    """

    low: float
    high: float
    questions: int


@dataclass(frozen=True)
class InBin:
    """One method in one bin.

    Attributes:
        accuracy: of the fine-tuned model, share of 1
        difference: to it, share of 1
    """

    accuracy: Interval | None = None
    difference: Interval | None = None


@dataclass(frozen=True)
class ByDifficulty:
    """One method by length of the reference solution.

    Attributes:
        method: its name
        bins: as many as there are bins
        trend: difference on the hardest question minus that on the easiest (slope over the rank of
            the solution's length), share of 1
        p: of the trend
        p_holm: adjusted over the methods
    """

    method: str
    bins: tuple[InBin, ...]
    trend: Interval | None = None
    p: float | None = None
    p_holm: float | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class Difficulty:
    """Effect by length of the reference solution; with one bin there are no methods.

    Attributes:
        unit: of the bins
        bins: of all questions
        methods: those that differ from the fine-tuned model
    """

    unit: str = ""
    bins: tuple[Bin, ...] = ()
    methods: tuple[ByDifficulty, ...] = ()

    def __post_init__(self) -> None:
        for index, row in enumerate(self.methods):
            require_length(row.bins, len(self.bins), "there are bins", "methods", index, "bins")


@dataclass(frozen=True)
class Prediction:
    """Predicted error of the contrasted logits.

    Attributes:
        lam: strength of contrast
        error_variance: over the strong model's; 1 at lambda 0
    """

    lam: float = field(metadata=LAMBDA)
    error_variance: float


@dataclass(frozen=True, kw_only=True)
class LogitErrors:
    """Logit errors of a strong and a weak model against the reference.

    Attributes:
        eps: standard deviation of the strong model's logit error, nats
        k: the weak model's error over ``eps``
        rho: correlation of the two
        rho_k: their product
        best_lambda: lambda of the least predicted error; 0 where contrast does not help
        contested: positions with more than one plausible token, share of 1
    """

    eps: Interval | None = None
    k: Interval | None = None
    rho: Interval | None = None
    rho_k: Interval | None = None
    best_lambda: Interval | None = None
    contested: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class Contrast(LogitErrors):
    """What one method contrasts, its logit errors, and what they predict.

    Attributes:
        method: `EpiCoDe` (where mu is not 0) or `CD only`
        strong: the strong model, in words
        weak: the weak model
        mu: of the strong model
        label: `helps` (interval of ``rho_k`` above 1), `does not help` (below), `undecided`,
            `nothing to contrast`
        prediction: by lambda; null where the errors are one and the same
        chosen: lambda that validation chose
    """

    method: str = ""
    strong: str = ""
    weak: str = ""
    mu: float | None = None
    label: str = ""
    prediction: tuple[Prediction, ...] | None = None
    chosen: float | None = None


@dataclass(frozen=True)
class Diagnostics:
    """Logit errors of the pair; null without ``--reference``.

    Attributes:
        reference: the better model
        texts: validation solutions that errors were measured on
        pairs: one for each method that contrasts
    """

    pairs: tuple[Contrast, ...]
    texts: int | None = None
    reference: Checkpoint | None = None


@dataclass(frozen=True)
class NllAtMu:
    """Validation NLL at one strength of extrapolation.

    Attributes:
        mu: the strength
        nll: mean of up to 64 validation solutions, nats/token
        difference: to mu = 0
        error: standard error of ``difference``, paired by text
    """

    mu: float
    nll: float
    difference: float
    error: float | None = None


@dataclass(frozen=True)
class PrecheckPart:
    """Whether a gain was to be expected, before anything was decoded.

    Attributes:
        label: `safe`, `risky`, `no gain expected`
        reasons: sentences
        line: the numbers along the checkpoints (`weights.Precheck`): `steps`, `parameters`,
            `norms`, `relative`, `cosines`, `r2`, `r2_walk`, `rank1`
        nll: over mu; null where it is withheld
    """

    label: str = ""
    reasons: tuple[str, ...] = ()
    line: Mapping[str, Any] = field(default_factory=dict)
    nll: tuple[NllAtMu, ...] | None = ()


@dataclass(frozen=True)
class Opening:
    """An opening of the test set, and how many there were.

    Attributes:
        test: hash of the test set, in any order
        count: openings of it that are known
        number: which of them this one is
        reopened: true if one with other settings came before
    """

    test: str
    count: int
    number: int
    reopened: bool

    @property
    def words(self) -> str:
        if self.count == 1:
            return "The test set was opened once, after the choice."
        return (
            f"The test set has been opened {self.count} times: a result chosen out of several "
            "looks too good."
        )


@dataclass(frozen=True)
class Boost:
    """``analysis`` of a boost.

    Attributes:
        search: `mu`, `lambda` and `cd_lambda` (CD only, which has a search of its own): each the
            candidates in order of value.  Where asked for, also `lambda_early`, `lambda_init`,
            `lambda_other` (further weak models), `lambda_gated` and `checkpoint` (by number and
            name, the last one first).  Candidates that `--narrow`
            left undecoded are not here but in ``narrowed``.  After a joint search `mu` is at lambda
            0 and `lambda` at the chosen mu
        methods: one for each of `fine-tuned`, `ME only`, `CD only` and `EpiCoDe`, then, where
            asked for, `EpiCoDe, weak early`, `EpiCoDe, weak init`, `EpiCoDe, weak NAME` and
            `EpiCoDe, gated`; `ME, equal step` where EpiCoDe contrasts; with `--baselines`
            `majority of 3 samples` (of the fine-tuned model; as many as `samples` says),
            `average of probabilities` (of the fine-tuned and the early model) and `best checkpoint`
        equal_step: EpiCoDe against `ME, equal step`; absent where it does not contrast
        run: after `--run`: what was chosen among the points of the run, whose search is `run`;
            `best of the run` among the methods is that point
        nll_slope: by search: accuracy that a nat a token less of NLL brings, where NLL had a say
            in the choice
        power: null where EpiCoDe is the fine-tuned model
        floor: a sentence where accuracy is too near its floor to show a difference
        difficulty: effect by length of the solution
        diagnostics: logit errors
        narrowed: with `--narrow`: by search (also `joint`), all its candidates
        joint: after `--search joint`: every pair tried, by mu and lambda
        precheck: null where it was switched off
        nll_withheld: why NLL was not taken, by part (`validation`, `test`): the reference
            answers are bare, and nothing shows that the model was trained to write bare answers
            ([boost.md](boost.md#nll-of-which-text)); null where it was taken
        test_openings: how often the test set was opened
    """

    search: Mapping[str, tuple[Candidate, ...]] | None = None
    methods: tuple[ComparedMethod, ...] | None = None
    power: Power | None = None
    equal_step: EqualStep | None = field(default=None, metadata=ABSENT)
    run: RunChoice | None = field(default=None, metadata=ABSENT)
    nll_slope: Mapping[str, float] | None = field(default=None, metadata=ABSENT)
    floor: str | None = None
    difficulty: Difficulty | None = None
    diagnostics: Diagnostics | None = None
    narrowed: Mapping[str, tuple[NarrowedCandidate, ...]] | None = field(
        default=None, metadata=ABSENT
    )
    joint: tuple[JointCandidate, ...] | None = field(default=None, metadata=ABSENT)
    precheck: PrecheckPart | None = None
    nll_withheld: Mapping[str, str] | None = None
    test_openings: Opening | None = None
    silent: frozenset[str] = not_in_file()


@dataclass(frozen=True)
class SeedsMethod:
    """A method over several seeds.

    Attributes:
        method: its name
        against: whom it is compared with
        mu: by seed
        lam: by seed
        accuracy: share of 1
        nll: of the reference solutions, nats/token; null where it is withheld
        difference: accuracy minus that of ``against``, share of 1; null where they are the same
        nll_difference: likewise; below 0 = better
        verdict: as of a boost; a gain or harm needs ``p_mcnemar`` of at most 0.05 where there is
            one
        cut: mean share of answers that reached the limit of new tokens
        letter_probability: of the right letter among those on offer, share of 1; absent where not
            all questions are choices, or their letters were not scored
        letter_difference: likewise, minus that of ``against``
    """

    method: str
    against: str = "fine-tuned"
    mu: tuple[float, ...] = ()
    lam: tuple[float, ...] = field(default=(), metadata=LAMBDA)
    accuracy: Interval | None = None
    nll: Interval | None = None
    difference: Interval | None = None
    nll_difference: Interval | None = None
    verdict: str | None = None
    cut: float | None = None
    letter_probability: Interval | None = field(default=None, metadata=ABSENT)
    letter_difference: Interval | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class SeedsComparison(SeedsMethod):
    """A method over several seeds that differs from another of the same seeds.

    Attributes:
        p_t: paired t over the seeds
        p_wilcoxon: Wilcoxon's signed ranks over the seeds
        nll_p_t: as ``p_t``, of NLL
        nll_p_wilcoxon: as ``p_wilcoxon``, of NLL
        seeds_better: seeds in which it is better
        seeds_worse: seeds in which it is worse
        p_mcnemar: exact, over all questions; null where seeds share their questions, or scores are
            other than right or wrong
        p_t_holm: adjusted over both tables
        nll_p_t_holm: likewise
        p_wilcoxon_holm: likewise
        nll_p_wilcoxon_holm: likewise
        letter_p_t: as ``p_t``, of the letters' probability
        letter_p_t_holm: adjusted over the letters of both tables
    """

    p_t: float | None = None
    p_wilcoxon: float | None = None
    nll_p_t: float | None = None
    nll_p_wilcoxon: float | None = None
    seeds_better: int | None = None
    seeds_worse: int | None = None
    p_mcnemar: float | None = None
    p_t_holm: float | None = field(default=None, metadata=ABSENT)
    nll_p_t_holm: float | None = field(default=None, metadata=ABSENT)
    p_wilcoxon_holm: float | None = field(default=None, metadata=ABSENT)
    nll_p_wilcoxon_holm: float | None = field(default=None, metadata=ABSENT)
    letter_p_t: float | None = field(default=None, metadata=ABSENT)
    letter_p_t_holm: float | None = field(default=None, metadata=ABSENT)


@dataclass(frozen=True)
class LambdaPoint:
    """Prediction beside what was measured, at one lambda.

    Attributes:
        lam: strength of contrast
        error_variance: predicted, 1 at lambda 0
        nll_difference: change of NLL from lambda 0, nats/token
        accuracy_difference: change of accuracy from lambda 0, share of 1
    """

    lam: float = field(metadata=LAMBDA)
    error_variance: Interval | None = None
    nll_difference: Interval | None = None
    accuracy_difference: Interval | None = None
