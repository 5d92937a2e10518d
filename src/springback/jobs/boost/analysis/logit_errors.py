"""Paper B's theory on a pair at hand: logit errors against a reference, and what they predict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, Literal

from springback import probes
from springback.core import Checkpoint, Run, Slice
from springback.errors import DataError
from springback.jobs.boost.arm import Arm
from springback.jobs.boost.scoring import Scoring
from springback.models.loading import Model, check_same_tokenizer, load_tokenizer
from springback.results.boost_schema import Contrast, Diagnostics, Prediction
from springback.theory.logit_errors import Errors, TextErrors, estimate

#: Lambdas that predictions are given for, beside those that were searched.
LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
_LABELS = {True: "helps", False: "does not help", None: "undecided"}


@dataclass(frozen=True)
class Contrasted:
    """A strong and a weak model of the pair: strong at ``mu``, weak ``ft`` or ``early``."""

    method: str
    mu: float
    weak: Literal["ft", "early"]


def contrasts(arms: Mapping[str, Arm]) -> list[Contrasted]:
    """What EpiCoDe and CD only contrast; a model set against itself is left out."""
    contrasted = []
    if arms["EpiCoDe"].mu:
        contrasted.append(Contrasted("EpiCoDe", arms["EpiCoDe"].mu, "ft"))
    contrasted.append(Contrasted("CD only", 0.0, "early"))
    return contrasted


@dataclass(frozen=True)
class Reference:
    """A model taken for the better one; in memory only as a weak model is."""

    checkpoint: Checkpoint

    def check(self, job: Scoring) -> None:
        """Raise :class:`~springback.errors.ModelError` where its tokenizer is not the pair's."""
        names = (self.checkpoint.path, job.ft.path)
        check_same_tokenizer(load_tokenizer(self.checkpoint), job.tokenizer, names)


def text_errors(
    job: Scoring, contrast: Contrasted, questions: Slice, reference: Reference
) -> list[TextErrors]:
    """Errors on the reference solutions of ``questions``, text by text; kept in the store."""
    rendered = job.format.render(questions)
    run = Run.of(
        "errors",
        early=job.early.content_hash,
        ft=job.ft.content_hash,
        reference=reference.checkpoint.content_hash,
        questions=rendered.content_hash,
        mu=float(contrast.mu),
        weak=contrast.weak,
        alpha=job.settings.alpha,
        system=job.settings.system,
        max_tokens=job.settings.max_tokens,
        **job.inputs(),
    )
    stored = job.store.results(run)
    if stored is None:
        job.progress.stage(f"logit errors: {contrast.method}, mu {contrast.mu:g}", 1)
        texts = probes.logit_errors(
            _one_by_one(job, contrast, reference),
            job.solutions(rendered),
            job.tokenizer,
            job.settings.alpha,
        )
        stored = job.store.commit(run, {"texts": [list(astuple(t)) for t in texts]})
        job.progress.advance()
    return [TextErrors(*text) for text in stored["texts"]]


def _one_by_one(job: Scoring, contrast: Contrasted, reference: Reference) -> Iterator[Model]:
    """Strong, weak and reference; each is done with when the next is asked for."""
    reference.check(job)
    yield job.sweep.at(contrast.mu)
    yield job.sweep.weak(contrast.weak)
    yield job.sweep.weak(reference.checkpoint)


def diagnose(
    job: Scoring, arms: Mapping[str, Arm], questions: Slice, reference: Reference
) -> Diagnostics:
    """Errors, rho k and the predicted effect of lambda for what each method contrasts."""
    pairs = []
    for contrast in contrasts(arms):
        lam = arms[contrast.method].lam
        texts = text_errors(job, contrast, questions, reference)
        pairs.append(replace(summary(contrast, texts, sorted({*LAMBDAS, lam})), chosen=lam))
    return Diagnostics(tuple(pairs), len(questions), reference.checkpoint)


def summary(
    contrast: Contrasted, texts: Sequence[TextErrors], lambdas: Sequence[float]
) -> Contrast:
    """One pair as the result file records it."""
    plain = Contrast(
        method=contrast.method,
        strong=f"extrapolated, mu {contrast.mu:g}" if contrast.mu else "fine-tuned",
        weak={"ft": "fine-tuned", "early": "early"}[contrast.weak],
        mu=contrast.mu,
        label="nothing to contrast",
    )
    try:
        errors = estimate(texts)
    except DataError:
        return plain
    factors = errors.factors(lambdas)
    predicted = None if factors is None else tuple(map(Prediction, lambdas, factors))
    return replace(plain, **quantities(errors), prediction=predicted)


def quantities(errors: Errors) -> dict[str, Any]:
    """The estimates by name, and as ``label`` whether contrast helps."""
    names = ("eps", "k", "rho", "rho_k", "best_lambda", "contested")
    return {"label": _LABELS[errors.helps], **{name: getattr(errors, name) for name in names}}
