"""One of the models under check: which files it is, and what is measured of it.

A boosted folder with contrast is measured as the pair that it decodes as: texts under the combined
distribution without a mask (:func:`springback.probes.mixed_nll`), answers contrastively.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from springback import probes
from springback.core import Checkpoint, Row, content_hash
from springback.data import framed
from springback.decoding import DecodeSettings, contrast, decode
from springback.errors import DataError
from springback.inference import Loaded, boost_facts, load_at
from springback.jobs.boost.checkpoints import folder_of
from springback.jobs.boost.letters import encoded_letters, letters_from, one_token_each
from springback.jobs.check.content import Item
from springback.jobs.check.settings import CheckSettings
from springback.models.encoding import (
    Encoded,
    answer_text,
    encode_answer,
    encode_prompt,
    numbered,
    stop_ids,
    text_bytes,
)
from springback.models.hub import base_of
from springback.models.loading import (
    BOOST_FILE,
    GENERATION_CONFIG,
    Tokenizer,
    load_tokenizer,
    resolve,
    tokenizer_source,
)
from springback.models.placement import Placement, placement
from springback.probes.likelihood import TextNLL
from springback.weights import file_digest, hash_weights, is_adapter

#: Files beside the weights that decide how a model is run.
_BESIDE = ("config.json", BOOST_FILE, GENERATION_CONFIG)
#: Of a run's scores: the measures of an item by name.
Scores = dict[str, list[float]]


class Subject:
    """A model folder, an adapter on its base, or a boosted folder; loaded when it is needed."""

    def __init__(self, settings: CheckSettings, name: str, base: Subject | None = None) -> None:
        """``base``: what an adapter is taken to be of.  Raises :class:`ModelError`."""
        self.settings, self.name = settings, name
        folder = folder_of(name)
        self.adapter: Path | None = folder if folder is not None and is_adapter(folder) else None
        if self.adapter is not None:
            self.folder: Path = base.folder if base else base_of([self.adapter])
        else:
            self.folder = Path(resolve(name).path)
        #: Where ``springback.json`` is.
        self.home = self.adapter or self.folder
        self.facts = boost_facts(self.home)
        self.identity = content_hash(self._files())

    def _files(self) -> list[Any]:
        """Hashes of all that the numbers depend on."""
        places = [p for p in (self.folder, self.adapter, self.facts.weak) if p is not None]
        beside = [place / name for place in places for name in _BESIDE]
        digests = [[f.name, file_digest(f)] for f in beside if f.exists()]
        return [*(hash_weights(place) for place in places), *digests]

    @property
    def place(self) -> Placement:
        return placement(self.settings).of_files(self.folder)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """With what the settings give the chat template, else what the folder was made with."""
        asked = self.settings if self.settings.chat_inputs() else self.facts.chat
        base = Checkpoint(str(self.folder))
        source = tokenizer_source(self.adapter, base) if self.adapter else base
        return load_tokenizer(source, asked)

    @cached_property
    def loaded(self) -> Loaded:
        return load_at(self.home, self.place, self.folder if self.adapter else None)

    def release(self) -> None:
        """Let go of the model, if it was loaded."""
        self.__dict__.pop("loaded", None)

    @property
    def system(self) -> str | None:
        return self.facts.system if self.settings.system is None else self.settings.system

    def prompt(self, row: Row) -> list[int]:
        """Token ids of what the model reads before it answers a prompt."""
        prompt = framed(self.facts.template, row.prompt)
        asked = Row("pair", prompt, "", turns=row.turns, place=row.place)
        return encode_prompt(self.tokenizer, asked, self.system)

    def encode(self, item: Item) -> Any:
        """The item as this model reads it."""
        rows, tokenizer = item.part.rows, self.tokenizer
        try:
            if item.kind == "text":
                return numbered(rows, self._text)
            if item.kind == "choice":
                return encoded_letters(rows, tokenizer, self.system)
            if item.harness is None:
                return [self.prompt(row) for row in rows]
            if item.harness.by_likelihood:
                return item.harness.choices(rows, tokenizer, self.system)
            return [encode_prompt(tokenizer, row, self.system) for row in rows]
        except DataError as error:
            raise DataError(f"read by {self.name}: {error}") from error

    def _text(self, row: Row) -> Encoded:
        """All tokens of a text but the first; of a row with a prompt the response.  No end token,
        whose chance says how a model was trained to stop."""
        if row.kind != "text":
            return encode_answer(self.tokenizer, row, row.response, self.system)
        ids = self.tokenizer(row.response)["input_ids"]
        if len(ids) < 2:
            raise DataError(
                f"{row.named} has {len(ids)} tokens; scoring needs 2 or more; leave it out"
            )
        return Encoded(tuple(ids), 1, text_bytes(self.tokenizer, ids[1:]))

    # What needs the model.

    @property
    def models(self) -> tuple[Any, Any]:
        """Strong and weak model; None without contrast."""
        return self.loaded.expert, self.loaded.amateur

    @property
    def mix(self) -> contrast.Mix:
        return contrast.unmasked(self.loaded.lam)

    def measure(self, item: Item, encoded: Any) -> Scores:
        """Every measure of an item by name: a score for each of its rows, in order."""
        if item.kind == "text":
            return {"bits per byte": [probes.bits_per_byte([s]) for s in self._nll(encoded)]}
        if item.kind == "choice":
            letters = letters_from(self._letters(encoded), item.part.rows)
            right = [float(c) for c in letters.correct]
            return {"accuracy": right, "probability of the right letter": [*letters.probability]}
        if item.harness is not None:
            return {item.harness.metric: self._harness(item, encoded)}
        texts = self._answers(encoded, self.settings.answer_tokens)
        return {"refusals": probes.refused(texts)}

    def _nll(self, rows: Sequence[Encoded]) -> list[TextNLL]:
        strong, weak = self.models
        if weak is None:
            return probes.nll(strong, rows, self.tokenizer)
        return probes.mixed_nll((strong, weak), rows, self.tokenizer, self.mix)

    def _letters(self, options: Sequence[Sequence[Encoded]]) -> list[list[float]]:
        """Log-likelihoods of letters; of one token each they take one pass a question."""
        if not one_token_each(options):
            return self._by_row(options)
        rows = [letters[0] for letters in options]
        tokens = [[letter.ids[-1] for letter in letters] for letters in options]
        return probes.first_tokens(self.models, rows, self.tokenizer, tokens, self.mix)

    def _by_row(self, options: Sequence[Sequence[Encoded]]) -> list[list[float]]:
        """Nats of every choice of every question."""
        nats = iter(self._nll([one for row in options for one in row]))
        return [[-next(nats).nats for _ in row] for row in options]

    def _harness(self, item: Item, encoded: Any) -> list[float]:
        assert item.harness is not None
        rows, task = item.part.rows, item.harness
        if task.by_likelihood:
            graded = task.grade_choices(rows, self._by_row(encoded))
        else:
            longest = task.max_new_tokens or self.settings.task_tokens
            graded = task.grade(rows, self._answers(encoded, longest))
        return [float(one) for one in graded]

    def _answers(self, prompts: Sequence[Sequence[int]], longest: int) -> list[str]:
        answers = self._decoded(prompts, longest, 0.0)
        return [answer_text(self.tokenizer, ids) for ids in answers]

    @property
    def width(self) -> int:
        """How many tokens it has a logit for."""
        return int(self.loaded.expert.config.get_text_config().vocab_size)

    def continuations(self, prompts: Sequence[Sequence[int]], width: int) -> list[Encoded]:
        """Sampled at temperature 1, all of one length; the noise is the same for every model.

        Tokens from ``width`` on, which another model does not have, are not drawn.
        """
        beyond = tuple(range(width, self.width))
        texts = self._decoded(prompts, self.settings.sample_tokens, 1.0, beyond)
        return probes.continued(prompts, texts)

    def _decoded(
        self,
        prompts: Sequence[Sequence[int]],
        longest: int,
        temperature: float,
        never: tuple[int, ...] = (),
    ) -> list[list[int]]:
        """Greedy answers that end where they end, or samples that may not."""
        strong, weak = self.models
        ends = stop_ids(self.tokenizer, Row("pair", "", ""), strong)
        how = DecodeSettings(
            max_new_tokens=longest,
            temperature=temperature,
            seed=self.settings.seed,
            batch_size=self.settings.batch_size,
            lam=self.loaded.lam,
            alpha=self.loaded.alpha,
            stop_ids=ends,
            forbidden_ids=(*ends, *never) if temperature else (),
            pad_id=self.tokenizer.pad_token_id,
        )
        return decode(strong, prompts, how, weak)


def kl_between(p: Subject, q: Subject, rows: Sequence[Encoded]) -> list[float]:
    """KL(p || q), mean over each row's counted positions (nats a token), in order."""
    sides = (p.models, p.mix), (q.models, q.mix)
    return probes.mixed_kl(*sides, rows, p.tokenizer)
