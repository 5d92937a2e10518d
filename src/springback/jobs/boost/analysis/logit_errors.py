"""Paper B's theory on a pair at hand: logit errors against a reference, and what they predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

from springback import probes
from springback.core import Checkpoint, Run, Slice
from springback.errors import DataError
from springback.jobs.boost.scoring import Arm, Scoring
from springback.models.loading import (
    Model,
    check_same_tokenizer,
    fit_vocabulary,
    load_model,
    load_tokenizer,
)
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
    weak: str


def contrasts(arms: Mapping[str, Arm]) -> list[Contrasted]:
    """What EpiCoDe and CD only contrast; a model set against itself is left out."""
    contrasted = []
    if arms["EpiCoDe"].mu:
        contrasted.append(Contrasted("EpiCoDe", arms["EpiCoDe"].mu, "ft"))
    contrasted.append(Contrasted("CD only", 0.0, "early"))
    return contrasted


class Reference:
    """A model taken for the better one; loaded when an error is first measured."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._model: Model | None = None

    def check(self, job: Scoring) -> None:
        """Raise :class:`~springback.errors.ModelError` where its tokenizer is not the pair's."""
        names = (self.checkpoint.path, job.ft.path)
        check_same_tokenizer(load_tokenizer(self.checkpoint), job.tokenizer, names)

    def model(self, job: Scoring) -> Model:
        """The weights, with logits as wide as the pair's; raises as :meth:`check` does."""
        if self._model is None:
            self.check(job)
            place = self.checkpoint.path
            width = int(job.sweep.ft.config.get_text_config().vocab_size)
            loaded = load_model(self.checkpoint)
            self._model = fit_vocabulary(loaded, width, len(job.tokenizer), place)
        return self._model


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
        **job.settings.chat_inputs(),
    )
    stored = job.store.results(run)
    if stored is None:
        job.progress.stage(f"logit errors: {contrast.method}, mu {contrast.mu:g}", 1)
        weak = job.sweep.ft if contrast.weak == "ft" else job.sweep.early
        models = (job.sweep.at(contrast.mu), weak, reference.model(job))
        texts = probes.logit_errors(
            models, job.solutions(rendered), job.tokenizer, job.settings.alpha
        )
        stored = job.store.commit(run, {"texts": [list(astuple(t)) for t in texts]})
        job.progress.advance()
    return [TextErrors(*text) for text in stored["texts"]]


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
