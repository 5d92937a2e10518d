"""Score ways to decode on a set of questions: tokens, grades, NLL of the reference solutions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, Literal

from springback.core import Checkpoint, Row, Run, Slice, byte_size
from springback.data import nll_withheld
from springback.data.grading import in_thoughts
from springback.decoding import DecodeSettings
from springback.decoding.adapter_pair import AdapterPair
from springback.errors import SpringbackError
from springback.jobs.boost.arm import Arm, Sampled, at_of, gate_of
from springback.jobs.boost.batches import MOST, row_bytes, rows_at_once
from springback.jobs.boost.engine import VLLM, Engine
from springback.jobs.boost.letters import all_choices, encoded_letters, letters_from, one_token_each
from springback.jobs.boost.questions import question_format, score_of, vote
from springback.jobs.boost.search import Letters, Tried
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.boost.transformers_engine import TransformersEngine
from springback.jobs.boost.vllm_engine import VllmEngine
from springback.models.checkpoint_pair import At, CheckpointPair, ModelPair
from springback.models.encoding import (
    Encoded,
    encode_prompt,
    encode_rows,
    listed_stops,
    numbered,
    prompt_text,
    stop_ids,
)
from springback.models.loading import check_same_tokenizer, load_tokenizer
from springback.models.memory import available_bytes
from springback.models.placement import placement
from springback.probes import TextNLL
from springback.progress import Progress
from springback.results.store import Store
from springback.results.texts import Answer
from springback.results.timing import Timer, timed

#: How runs are made: each arm by the plain loop, a group at once, the NLL of a group, or the
#: letters of choices.
How = Literal["score", "score_all", "nll", "letters"]


class Scoring:
    """The pair, the engine that decodes and scores it, and the store of finished runs."""

    #: Makes groups of runs in other processes before they are read here: how, groups, part.
    elsewhere: Callable[[How, list[list[tuple[Run, Arm]]], str], None] | None = None

    def __init__(
        self,
        settings: BoostSettings,
        line: Sequence[Checkpoint],
        store: Store,
        progress: Progress,
        weak: Mapping[str, Checkpoint] | None = None,
        train: Slice | None = None,
    ) -> None:
        """``line``: checkpoints of one run, the last two of which are early and ft.  ``train``:
        rows that show what the pair was trained to write."""
        self.settings, self.store, self.progress = settings, store, progress
        self.train = train
        *self.before, self.early, self.ft = line
        self.format, self.sampled = question_format(settings), Sampled.of(settings)
        if self.by_likelihood and (self.sampled or settings.baselines):
            raise SpringbackError(
                f"{self.format.metric} is judged by the log-likelihoods of choices, so nothing is "
                "decoded; allowed: neither --samples nor --baselines; leave them out"
            )
        self.sweep = _models(line, settings, store)
        self.tokenizer = self.sweep.tokenizer
        self.weak = dict(weak or {})
        for checkpoint in self.weak.values():
            names = (checkpoint.path, self.ft.path)
            check_same_tokenizer(load_tokenizer(checkpoint), self.tokenizer, names)
        #: Token ids by questions and place without contrast: the answers a search begins with.
        self._answers: dict[tuple[str, At], list[list[int]]] = {}
        self.engine = _engine(settings, line, self.sweep, self.weak, store.timer)

    @property
    def timer(self) -> Timer:
        return self.store.timer

    def score(self, arm: Arm, questions: Slice, part: str, greedy: bool = False) -> Tried:
        """Decode every question under ``arm``, grade it, score the solutions.

        With Transformers by the plain loop.

        ``greedy``: one greedy answer also where the settings ask for samples.
        """
        if arm.votes:
            results = self._voted(arm, questions, part, arm.votes)
        else:
            results = self._scored(arm, questions, part, None if greedy else self.sampled)
        return self._tried(arm, results, questions, part)

    def answers(self, arm: Arm, questions: Slice, part: str) -> list[Answer]:
        """What the run of an arm that was scored holds of every question, the first of several
        samples; an empty text where nothing was decoded."""
        rendered = self.format.render(questions)
        run = self.run("score", arm, rendered, part, None if arm.votes else self.sampled)
        results, tried = self.store.results(run) or {}, self.score(arm, questions, part)
        texts = results.get("completions") or [""] * len(rendered)
        cut = results.get("cut_off") or [False if results.get("cut") == 0 else None] * len(rendered)
        return [
            Answer(texts[i], float(score), tried.nll[i] if tried.nll else None, cut[i])
            for i, score in enumerate(tried.correct)
        ]

    @timed("decoding")
    def _scored(
        self, arm: Arm, questions: Slice, part: str, sampled: Sampled | None
    ) -> Mapping[str, Any]:
        """Results of the run of an arm, made where they are not there.

        Samples have noise by their number and the question's, the same under every arm, so that
        what differs between two arms is not the luck of the draw.
        """
        rendered = self.format.render(questions)
        run = self.run("score", arm, rendered, part, sampled)
        results = self.store.results(run)
        if results is None:
            key, times = arm.key(), sampled.samples if sampled else 1
            if self.by_likelihood:
                self._score_group([(run, arm)], rendered, part)
                return self.store.results(run) or {}
            self._announce(part, [arm], times * len(rendered))
            how = replace(self._how(rendered), lam=key["lam"], gate=gate_of(key))
            how = replace(how, average="average" in key)
            if sampled:
                temperature, seed = sampled.temperature, sampled.seed
                how = replace(how, temperature=temperature, seed=seed, keyed_noise=True)
            prompts = self._prompts(rendered) * times
            ids = self.engine.decode(key, prompts, how, self.progress.advance)
            nll = [] if self.withheld(questions, part) else self._solution_nll([arm], rendered)[0]
            results = self.store.commit(run, self._graded(ids, nll, rendered, times))
        return results

    def _voted(self, arm: Arm, questions: Slice, part: str, sampled: Sampled) -> Mapping[str, Any]:
        """Of every question the sample with the answer that most samples give."""
        rendered = self.format.render(questions)
        run = self.run("score", arm, rendered, part)
        results = self.store.results(run)
        if results is None:
            single = self._scored(replace(arm, votes=None), questions, part, sampled)
            count, texts = len(rendered), single["completions"]
            rows = rendered.rows * len(single["sampled"][0])
            readings = self.format.readings(rows, self._begun(texts, rendered))
            chosen = [vote(readings[i::count]) for i in range(count)]
            results = {
                "correct": [given[k] for given, k in zip(single["sampled"], chosen, strict=True)],
                "nll": [],
                "completions": [texts[k * count + i] for i, k in enumerate(chosen)],
            }
            results = self.store.commit(run, results)
        return results

    def score_each(
        self, arms: Mapping[str, Arm], questions: Slice, part: str, letters: bool = False
    ) -> dict[str, Tried]:
        """:meth:`score` of every arm; those with one weak model after another, so that each is
        loaded once.  With ``letters`` also :meth:`letters`, where all questions are choices."""
        letters = letters and all_choices(questions, self.format)
        self.make_elsewhere("score", list(arms.values()), questions, part)
        if letters:
            alone = [arm for arm in arms.values() if not arm.votes]
            self.make_elsewhere("letters", alone, questions, part)
        if self.engine.mixes:
            self.score_all(list(arms.values()), questions, part)
        by_weak = sorted(arms, key=lambda name: arms[name].key()["weak"] or "")
        tried = {}
        for name in by_weak:
            tried[name] = self.score(arms[name], questions, part)
            if letters and not arms[name].votes:
                scores = self.letters(arms[name], questions, part)
                tried[name] = replace(tried[name], letters=scores)
        return {name: tried[name] for name in arms}

    def letters(self, arm: Arm, questions: Slice, part: str) -> Letters:
        """How likely every letter on offer is right after the prompt, under ``arm``."""
        rendered = self.format.render(questions)
        run = self.run("letters", arm, rendered, part)
        results = self.store.results(run)
        if results is None:
            options = encoded_letters(rendered.rows, self.tokenizer, self.settings.system)
            if one_token_each(options):
                known = not self.withheld(questions, part)
                logliks = self._first_tokens(arm, rendered, options, known)
            else:
                logliks = self._choice_logliks([arm], options)[0]
            results = self.store.commit(run, {"logliks": logliks})
        return letters_from(results["logliks"], questions.rows)

    @timed("scoring")
    def _first_tokens(
        self, arm: Arm, rendered: Slice, options: Sequence[Sequence[Encoded]], known: bool
    ) -> list[list[float]]:
        """Log-likelihoods of letters of one token each: one position a question has them all.

        ``known``: after the prompts of the solutions, whose states are kept already.
        """
        rows = self.solutions(rendered) if known else [letters[0] for letters in options]
        tokens = [[letter.ids[-1] for letter in letters] for letters in options]
        kept = rendered.content_hash if known else None
        return self.engine.first_tokens(arm.key(), rows, tokens, kept)

    def withheld(self, questions: Slice, part: str) -> str | None:
        """Why NLL is not taken on these questions (:func:`springback.data.nll_withheld`)."""
        return nll_withheld(questions, part, self.train)

    def score_all(self, arms: Sequence[Arm], questions: Slice, part: str) -> list[Tried]:
        """:meth:`score` of many arms, each group with one mu and one weak model at once, or all of
        them where the engine mixes.

        The tokens are the same up to rounding (:func:`springback.decoding.decode_variants`).
        """
        self.make_elsewhere("score_all", arms, questions, part)
        if self.sampled:  # variants of several lambdas are greedy
            return [self.score(arm, questions, part) for arm in arms]
        rendered = self.format.render(questions)
        runs = [self.run("score", arm, rendered, part) for arm in arms]
        groups = self._missing(runs, arms)
        if self.engine.mixes and groups and not self.by_likelihood:
            groups = [[scored for group in groups for scored in group]]
        for group in groups:
            self._score_group(group, rendered, part)
        return [
            self._tried(arm, self.store.results(run) or {}, questions, part)
            for arm, run in zip(arms, runs, strict=True)
        ]

    def _tried(self, arm: Arm, results: Mapping[str, Any], questions: Slice, part: str) -> Tried:
        """A stored run as the search takes it.  NLL goes by this call, not by the one that stored
        it: there it may have been withheld, or not yet."""
        nll: Sequence[float] = ()
        if not arm.votes and not self.withheld(questions, part):
            nll = results["nll"] or self.nll_all([arm], questions, part)[0]
        value = arm.lam if arm.weak else arm.mu
        sampled = tuple(tuple(answers) for answers in results.get("sampled", ()))
        correct, cut = tuple(results["correct"]), results.get("cut")
        return Tried(value, correct, tuple(nll), cut, sampled=sampled)

    @timed("decoding")
    def _score_group(self, group: list[tuple[Run, Arm]], rendered: Slice, part: str) -> None:
        arms = [arm for _, arm in group]
        keys = [arm.key() for arm in arms]
        self._announce(part, arms, len(rendered))
        nlls = self._nlls(arms, rendered, part)  # first, so that an arm is kept once it is decoded
        if self.by_likelihood:
            graded = self._graded_choices(arms, nlls, rendered)
            for (run, _), results in zip(group, graded, strict=True):
                self.store.commit(run, results)
            return
        known = self._known(arms[0], rendered, part)
        how = replace(self._how(rendered), gate=gate_of(keys[0]))

        def take(i: int, ids: list[list[int]]) -> None:
            if not keys[i]["lam"]:
                self._answers[rendered.content_hash, at_of(keys[i])] = ids
            self.store.commit(group[i][0], self._graded(ids, nlls[i], rendered))

        prompts, advance = self._prompts(rendered), self.progress.advance
        self.engine.decode_each(keys, prompts, how, known, advance, take)

    @property
    def by_likelihood(self) -> bool:
        """Whether questions are judged by the log-likelihoods of their choices."""
        return self.format.harness is not None and self.format.harness.by_likelihood

    def _nlls(self, arms: Sequence[Arm], rendered: Slice, part: str) -> Sequence[Sequence[float]]:
        """NLL of the reference solutions by arm; empty where withheld."""
        if self.withheld(rendered, part):
            return [()] * len(arms)
        if _of_several_models(arms):
            nlls = self._kept_nll(arms, rendered, part)
            self._announce(part, arms, len(rendered))  # over the stage of the NLL
            return nlls
        return self._stored_nll(arms, rendered, part) or self._solution_nll(arms, rendered)

    def _graded_choices(
        self, arms: Sequence[Arm], nlls: Sequence[Sequence[float]], rendered: Slice
    ) -> list[dict[str, Any]]:
        """What is stored of each arm: scores of the questions, and log-likelihoods of the choices
        (nats, the pair unmasked as :func:`probes.pair_nll`)."""
        assert self.format.harness is not None
        rows = rendered.rows
        choices = self.format.harness.choices(rows, self.tokenizer, self.settings.system)
        stored = []
        for likelihoods, nll in zip(self._choice_logliks(arms, choices), nlls, strict=True):
            correct = self.format.grade_choices(rows, likelihoods)
            stored.append({"correct": correct, "nll": nll, "log_likelihoods": likelihoods})
        self.progress.advance(len(rows))
        return stored

    def _choice_logliks(
        self, arms: Sequence[Arm], choices: Sequence[Sequence[Encoded]]
    ) -> list[list[list[float]]]:
        """Log-likelihood of every choice of every question by arm, nats."""
        by_arm = self._text_nll(arms, [choice for row in choices for choice in row])
        waiting = map(iter, by_arm)
        return [[[-next(scores).nats for _ in row] for row in choices] for scores in waiting]

    def nll_all(self, arms: Sequence[Arm], questions: Slice, part: str) -> list[list[float]]:
        """NLL of the reference solutions under each arm, nats a token; one pass for all lambdas."""
        self.make_elsewhere("nll", arms, questions, part)
        return self._kept_nll(arms, self.format.render(questions), part)

    def _kept_nll(self, arms: Sequence[Arm], rendered: Slice, part: str) -> list[list[float]]:
        """NLL by arm; stored as each group is done, which may take as long as decoding it."""
        runs = [self.run("nll", arm, rendered, part) for arm in arms]
        groups = self._missing(runs, arms)
        if groups:
            self.progress.stage(f"{part}: NLL of {len(arms)} candidates", len(groups))
        for group in groups:
            scores = self._solution_nll([arm for _, arm in group], rendered)
            for (run, _), nll in zip(group, scores, strict=True):
                self.store.commit(run, {"nll": nll})
            self.progress.advance()
        return [(self.store.results(run) or {})["nll"] for run in runs]

    @timed("waiting")
    def make_elsewhere(self, how: How, arms: Sequence[Arm], questions: Slice, part: str) -> None:
        """Have :attr:`elsewhere`, where it is set, make the runs of ``arms`` that are not done."""
        if self.elsewhere is None:
            return
        rendered = self.format.render(questions)
        kind = "score" if how == "score_all" else how
        sampled = self.sampled if kind == "score" else None
        runs = [self.run(kind, arm, rendered, part, sampled) for arm in arms]
        if groups := self._missing(runs, arms):
            self.elsewhere(how, groups, part)

    def _missing(self, runs: Sequence[Run], arms: Sequence[Arm]) -> list[list[tuple[Run, Arm]]]:
        """Runs that are not done, each once, grouped by the models that decode them."""
        groups: dict[tuple[Any, ...], dict[str, tuple[Run, Arm]]] = {}
        for run, arm in zip(runs, arms, strict=True):
            if self.store.results(run) is None:
                groups.setdefault(_models_of(arm), {})[run.id] = (run, arm)
        return [list(group.values()) for group in groups.values()]

    def run(
        self, kind: str, arm: Arm, rendered: Slice, part: str, sampled: Sampled | None = None
    ) -> Run:
        """The run of an arm on questions as they are asked."""
        s, key = self.settings, arm.key()
        extra = {**self.format.key(), **key}
        if "point" in key:
            extra["before"] = [checkpoint.content_hash for checkpoint in self.before]
        if key["weak"] in self.weak:
            extra["weak_model"] = self.weak[key["weak"]].content_hash
        if kind in ("nll", "letters"):
            extra = {k: v for k, v in extra.items() if k not in ("metric", "extract")}
        else:
            extra |= {"alpha": s.alpha, "decode": [s.max_new_tokens, self.batch_size(rendered)]}
            extra |= listed_stops(self.tokenizer, rendered.rows[0], self.sweep.configs)
            extra |= {"sampled": sampled} if sampled and not arm.votes else {}
        return Run.of(
            kind,
            early=self.early.content_hash,
            ft=self.ft.content_hash,
            questions=rendered.content_hash,
            part=part,
            system=s.system,
            max_tokens=s.max_tokens,
            **self.inputs(),
            **extra,
        )

    def inputs(self) -> dict[str, Any]:
        """What changes numbers in every run: how questions are put, the dtype, the engine."""
        chat, place = self.settings.chat_inputs(), self.sweep.place
        return {**chat, **place.inputs(), **self.engine.inputs()}

    def solutions(self, rendered: Slice) -> list[Any]:
        """The reference solutions as tokens; of the answers where there are none."""
        rows = [replace(r, response=r.response or r.answer or "") for r in rendered.rows]
        return encode_rows(self.tokenizer, rows, self.settings.max_tokens, self.settings.system)

    def batch_size(self, rendered: Slice) -> int:
        """Questions decoded at once; what ``auto`` comes to is kept, since tokens may depend on it:
        a study goes on with it on any machine."""
        s = self.settings
        if s.batch_size != "auto":
            return s.batch_size
        if s.engine == VLLM:  # which fits its own batches to its memory
            return MOST
        lambdas = max(len(s.lam), len(s.lam_cd))
        run = Run.of(
            "batch",
            early=self.early.content_hash,
            ft=self.ft.content_hash,
            questions=rendered.content_hash,
            max_new_tokens=s.max_new_tokens,
            lambdas=lambdas,
            system=s.system,
            **self.inputs(),
        )
        kept = self.store.results(run)
        if kept is None:
            longest = max(map(len, self._prompts(rendered)))
            place, config = self.sweep.place, self.sweep.configs.config
            row = row_bytes(config, longest, s.max_new_tokens, lambdas, place.dtype)
            free = available_bytes(str(place.device)) - self.sweep.to_load
            kept = self.store.commit(run, {"rows": rows_at_once(free, row, len(rendered))})
            self.progress.note(
                f"{kept['rows']} questions are decoded at once: {byte_size(row)} each, "
                f"{byte_size(max(free, 0))} free beside the weights"
            )
        return int(kept["rows"])

    def _announce(self, part: str, arms: Sequence[Arm], questions: int) -> None:
        """Say which arms come; ``questions``: how many."""
        lams = ", ".join(f"{arm.key()['lam']:g}" for arm in arms)
        key = arms[0].key()
        if _of_several_models(arms):
            self.progress.stage(f"{part}: {len(arms)} candidates together", questions)
        elif arms[0].point is not None:
            self.progress.stage(f"{part}: {arms[0].method}", questions)
        else:
            what = f"{part}: {arms[0].method}, mu {key['mu']:g}, lambda {lams}"
            self.progress.stage(what, questions)

    def _prompts(self, rendered: Slice) -> list[list[int]]:
        system = self.settings.system
        return numbered(rendered.rows, lambda row: encode_prompt(self.tokenizer, row, system))

    def _how(self, rendered: Slice) -> DecodeSettings:
        s = self.settings
        return DecodeSettings(
            max_new_tokens=s.max_new_tokens,
            alpha=s.alpha,
            batch_size=self.batch_size(rendered),
            stop_ids=stop_ids(self.tokenizer, rendered.rows[0], self.sweep.configs),
            pad_id=self.tokenizer.pad_token_id,
        )

    def _graded(
        self, ids: Sequence[Sequence[int]], nll: Sequence[float], rendered: Slice, times: int = 1
    ) -> dict[str, Any]:
        """``ids``: the answers, all questions ``times`` one after another."""
        rows: Sequence[Row] = rendered.rows * times
        texts = [self.tokenizer.decode(list(i), skip_special_tokens=True) for i in ids]
        outcomes = self.format.outcomes(rows, self._begun(texts, rendered))
        right = [score_of(outcome) for outcome in outcomes]
        sampled = [right[i :: len(rendered)] for i in range(len(rendered))]
        results = {
            "correct": right if times == 1 else [sum(given) / times for given in sampled],
            **({"sampled": sampled} if times > 1 else {}),
            "nll": nll,
            "completions": texts,
            "cut": sum(cut_off := [len(i) == self.settings.max_new_tokens for i in ids]),
            "cut_off": cut_off[: len(rendered)],
        }
        if self.format.expressions(rows):
            unread = results["unread"] = outcomes.count("unread")
            if unread:
                self.progress.note(
                    f"{unread} of {len(rows)} answers count as wrong unread: they hold no "
                    "expression, or one that takes too long to work out"
                )
        return results

    def _begun(self, texts: Sequence[str], rendered: Slice) -> list[str]:
        """Completions with the mark of thoughts that the template opens: they only close it."""
        prompt = prompt_text(self.tokenizer, rendered.rows[0], self.settings.system)
        begun = "<think>" if in_thoughts(prompt) else ""
        return [begun + text for text in texts]

    def _known(self, arm: Arm, rendered: Slice, part: str) -> list[list[int]] | None:
        """Answers without contrast at this place, else at the nearest mu: a guess to begin with."""
        have = {at: ids for (q, at), ids in self._answers.items() if q == rendered.content_hash}
        at = at_of(arm.key())
        if at not in have:
            plain = self.run("score", replace(arm, lam=0, weak=None, gate=None), rendered, part)
            if (results := self.store.results(plain)) is not None:
                texts = results["completions"]
                return [self.tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
        mus = {place: ids for place, ids in have.items() if isinstance(place, float)}
        near = at if isinstance(at, float) else 0.0
        return have.get(at) or (mus[min(mus, key=lambda m: abs(m - near))] if mus else None)

    def _stored_nll(
        self, arms: Sequence[Arm], rendered: Slice, part: str
    ) -> list[list[float]] | None:
        """NLL by arm where the runs of all of them are stored, else None."""
        stored = [self.store.results(self.run("nll", arm, rendered, part)) for arm in arms]
        return [results["nll"] for results in stored if results] if all(stored) else None

    def _solution_nll(self, arms: Sequence[Arm], rendered: Slice) -> list[list[float]]:
        """NLL of the reference solutions by arm, nats a token."""
        by_arm = self._text_nll(arms, self.solutions(rendered), rendered.content_hash)
        return [[s.per_token for s in scores] for scores in by_arm]

    def _text_nll(
        self, arms: Sequence[Arm], texts: Sequence[Encoded], kept: str | None = None
    ) -> list[list[TextNLL]]:
        """:meth:`Engine.text_nll` of any arms; neighbours with one mu and weak model at once."""
        return [
            scores
            for _, same in groupby(arms, _models_of)
            for scores in self.engine.text_nll([arm.key() for arm in same], texts, kept)
        ]


def _models_of(arm: Arm) -> tuple[Any, ...]:
    """Which models an arm decodes by: mu, weak model and gate."""
    key = arm.key()
    return at_of(key), key["weak"], key.get("gate"), "average" in key


def _of_several_models(arms: Sequence[Arm]) -> bool:
    return len(set(map(_models_of, arms))) > 1


def _models(line: Sequence[Checkpoint], settings: BoostSettings, store: Store) -> ModelPair:
    *before, early, ft = line
    place = placement(settings)
    if ft.adapter is not None:
        return AdapterPair(early, ft, chat=settings, place=place, before=before)
    return CheckpointPair(early, ft, chat=settings, place=place, scratch=store.root, before=before)


def _engine(
    settings: BoostSettings,
    line: Sequence[Checkpoint],
    sweep: ModelPair,
    weak: Mapping[str, Checkpoint],
    timer: Timer,
) -> Engine:
    if settings.engine == VLLM:
        return VllmEngine(settings, line, sweep, weak, timer)
    return TransformersEngine(sweep, weak, timer)
