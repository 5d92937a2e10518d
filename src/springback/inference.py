"""Load a plain or boosted model folder and generate with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from springback.core import Row, RowKind
from springback.data import check_template, framed
from springback.decoding import (
    ContrastModel,
    DecodeSettings,
    Hooks,
    Speculation,
    Work,
    decode,
    decode_fast,
)
from springback.decoding.lora_pair import load_twin
from springback.decoding.settings import Processor
from springback.errors import DataError, ModelError, SpringbackError, describe
from springback.models.encoding import (
    Encoded,
    answer_text,
    encode_answer,
    encode_prompt,
    may_change,
    stop_ids,
)
from springback.models.hub import base_of, local_folder
from springback.models.loading import (
    BOOST_FILE,
    GENERATION_CONFIG,
    Tokenizer,
    check_same_tokenizer,
    load_model,
    load_tokenizer,
    read_configs,
    release_memory,
    resolve,
    tokenizer_source,
)
from springback.models.memory import architecture_of, read_architecture
from springback.models.memory_parts import Parts, decoding_parts, pair_weights
from springback.models.names import require_adapters_above
from springback.models.out_of_memory import explained
from springback.models.placement import Placement, placement
from springback.models.templates import with_chat
from springback.probes import MaskedNLL, pair_nll, pair_nll_masked
from springback.settings import ChatSettings, ComputeSettings, GenerateOptions
from springback.weights import is_adapter
from springback.weights.io.folder import readable_json

#: Tokens of a row that an error about memory counts with before there are prompts.
COLUMNS = 1024


@dataclass(frozen=True)
class Loaded:
    """A model ready to decode: ``amateur`` is None for a plain model or lambda 0.

    ``system`` and ``template`` (with ``{question}`` in it) are what a boosted folder was measured
    with; ``asks``: prompts were questions, which matters to a model without a chat template.
    ``place``: what both were loaded in.
    """

    expert: PreTrainedModel
    amateur: PreTrainedModel | None
    tokenizer: Tokenizer
    lam: float = 0.0
    alpha: float = 0.1
    system: str | None = None
    template: str | None = None
    asks: bool = False
    place: Placement = field(default_factory=Placement)


@dataclass(frozen=True)
class GenerateSettings(GenerateOptions):
    """How to answer: greedy, or sampled when ``temperature`` is above 0.

    A prompt goes through the model's chat template, after the boosted folder's own system message
    unless ``system`` is given, and put into the folder's own frame of a question unless
    ``prompt_template`` is (``{question}`` for none); ``raw=True`` continues it as bare text.  An
    answer ends before the first of the ``stop`` strings, at an end token
    (:func:`springback.models.encoding.stop_ids`), or at one of ``stop_ids``.  Penalties,
    contrast, processors and filters apply in the order of :mod:`springback.decoding.settings`.

    ``draft`` is where speculation takes its guesses: ``ngram``, ``amateur``, ``none`` or
    ``model``, a smaller one with the same tokenizer, named or loaded as ``draft_model``.
    ``cache`` is ``dynamic``, or for a GPU ``static`` or ``compiled``
    (:class:`springback.decoding.Speculation`).
    ``reference`` runs the plain loop, both models at every token: the same answers, more slowly.
    ``on_text(row, piece)`` is called with each new piece of an answer's text.
    """

    _: KW_ONLY
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    draft_model: str | Path | PreTrainedModel | None = None
    processors: tuple[Processor, ...] = ()
    on_text: Callable[[int, str], None] | None = None


class Generated(list[str]):
    """Answers, in order; ``work`` has the statistics of the run."""

    def __init__(self, answers: Sequence[str], work: Work) -> None:
        super().__init__(answers)
        self.work = work


def _needed(
    model: str | Path | Loaded,
    prompts: Sequence[str] | str | Path | None = None,
    *given: Any,
    dtype: str = "auto",
    **changes: Any,
) -> Parts:
    """What loading a model and answering prompts hold, for an error where that is too much.

    Takes what :func:`load` and :func:`generate` take.
    """
    rows, columns = 1, COLUMNS
    if isinstance(prompts, (list, tuple)):
        rows = len(prompts)
        columns = max(map(len, prompts), default=0) // 3 + GenerateSettings().max_new_tokens
    if isinstance(model, Loaded):
        expert, models = model.expert, 1 + (model.amateur is not None)
        shape = architecture_of(expert.config, weights=float(expert.num_parameters()))
        name = str(expert.dtype)
    else:
        shape = read_architecture(local_folder(str(model)))
        name = "float32" if dtype == "auto" else dtype
        models = 1 + bool(_facts(local_folder(str(model))).get("lambda"))
    weights = pair_weights(shape, name)[:models]
    return (*weights, *decoding_parts(shape, name, rows, columns, models))


@explained("generate", _needed)
def load(
    model: str | Path,
    base: str | Path | None = None,
    *,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | Mapping[str, int | str] | None = None,
    quantize: str | None = None,
) -> Loaded:
    """Load a built-in name, a model folder, a hub id, an adapter, or a boosted folder of either.

    ``dtype``: ``float32``, ``bfloat16`` or ``float16``, of weights and computing; ``auto`` is as
    stored on an accelerator and float32 on a CPU.  ``device``: ``cpu``, ``mps``, ``cuda`` or
    ``cuda:N``; ``auto`` is the accelerator if there is one.  ``device_map``: ``auto`` spreads each
    model over GPUs, then memory, then disk (accelerate); also a map of module names to devices.

    ``quantize``: ``nf4`` holds the base of an adapter in 4 bit (needs ``springback[nf4]``).

    Of a pair of adapters both share one set of base weights; ``base`` says where these are, if the
    adapter's own settings don't (or no longer).  Raises :class:`springback.errors.ModelError`.

    >>> loaded = springback.load("springback-boost/model", dtype="bfloat16")  # doctest: +SKIP
    """
    return load_at(model, _place(dtype, device, device_map, quantize), base)


def _place(
    dtype: str,
    device: str,
    device_map: str | Mapping[str, int | str] | None,
    quantize: str | None = None,
) -> Placement:
    named, by_module = (None, device_map) if isinstance(device_map, Mapping) else (device_map, None)
    settings = ComputeSettings(dtype=dtype, device=device, device_map=named, quantize=quantize)
    return placement(settings, by_module)


def load_at(model: str | Path, place: Placement, base: str | Path | None = None) -> Loaded:
    """:func:`load`, at ``place``."""
    if is_adapter(model):
        return _load_adapters(Path(model), base, place)
    require_adapters_above(ComputeSettings(quantize=place.quantize), model)
    if base is not None:
        raise ModelError(describe(f"base {base} for {model}", "a base for an adapter", "omit it"))
    checkpoint = resolve(model)
    facts = _facts(Path(checkpoint.path))
    expert, tokenizer = (
        load_model(checkpoint, place),
        load_tokenizer(checkpoint, ChatSettings.recorded(facts)),
    )
    how: dict[str, Any] = {"system": facts.get("system"), "template": facts.get("prompt_template")}
    how |= {"asks": facts.get("kind") == "boosted", "place": place}
    if isinstance(expert, ContrastModel):
        pair, lam = expert, expert.config.lam
        amateur = pair.amateur if lam > 0 else None
        return Loaded(pair.expert, amateur, tokenizer, lam, pair.config.alpha, **how)
    if facts.get("kind") != "boosted" or not facts.get("lambda"):
        return Loaded(expert, None, tokenizer, **how)
    amateur = load_model(resolve(_weak_folder(Path(checkpoint.path), facts)), place)
    lam, alpha = float(facts["lambda"]), float(facts.get("alpha") or 0.1)
    return Loaded(expert, amateur, tokenizer, lam, alpha, **how)


def _facts(folder: Path) -> dict[str, Any]:
    """``springback.json``, empty without one; raises :class:`ModelError` for what it cannot say."""
    file = folder / BOOST_FILE
    if not file.exists():
        return {}
    facts = readable_json(file)
    if not isinstance(facts, dict):
        raise ModelError(f"{file} is no JSON object; write the folder again")
    ranges = {"lambda": (0.0, math.inf), "alpha": (0.0, 1.0)}
    for name, (low, high) in ranges.items():
        value = facts.get(name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and math.isfinite(value) and low <= value <= high):
            allowed = "a number from 0 up" if math.isinf(high) else "a number from 0 to 1"
            raise ModelError(
                f"{file}: " + describe(f"{name} {value!r}", allowed, "write the folder again")
            )
    for name in ("system", "prompt_template"):
        if not isinstance(facts.get(name), (str, type(None))):
            raise ModelError(
                f"{file}: "
                + describe(f"{name} {facts[name]!r}", "a text", "write the folder again")
            )
    return facts


@dataclass(frozen=True)
class BoostFacts:
    """What ``springback.json`` says of a folder: strengths, its weak model, how it asks."""

    lam: float
    alpha: float
    weak: Path | None
    system: str | None
    template: str | None
    chat: ChatSettings


def boost_facts(folder: Path) -> BoostFacts:
    """Of a boosted folder; lambda 0 and no weak model of any other.

    Raises :class:`ModelError` for what the file cannot say.
    """
    facts = _facts(folder)
    lam = float(facts.get("lambda") or 0)
    weak = _weak_folder(folder, facts) if lam else None
    alpha = float(facts.get("alpha") or 0.1)
    asked = facts.get("system"), facts.get("prompt_template")
    return BoostFacts(lam, alpha, weak, *asked, ChatSettings.recorded(facts))


def _weak_folder(folder: Path, facts: Any) -> Path:
    """Where the weak model is; raises :class:`ModelError` unless that is inside ``folder``."""
    name = str(facts.get("amateur", ""))
    weak = (folder / name).resolve()
    if not name or not weak.is_relative_to(folder.resolve()):
        raise ModelError(
            f"{folder / BOOST_FILE} names the weak model {name!r}, which is not inside the folder; "
            "write the folder again"
        )
    return weak


def _load_adapters(folder: Path, base: str | Path | None, place: Placement) -> Loaded:
    """An adapter, or a pair of them, on its base model."""
    checkpoint = resolve(base_of([folder], base))
    facts = _facts(folder)
    lam = float(facts.get("lambda") or 0)
    weak = _weak_folder(folder, facts) if lam else None
    model = load_model(checkpoint, place)
    if (folder / GENERATION_CONFIG).exists():
        model.generation_config = read_configs(checkpoint.path, folder).generation_config
    expert, amateur = load_twin(model, folder, weak)
    release_memory()  # factors in float64, and what reading the adapters took
    here = tokenizer_source(folder, checkpoint)
    return Loaded(
        expert,
        amateur if lam else None,
        load_tokenizer(here, ChatSettings.recorded(facts)),
        lam,
        float(facts.get("alpha") or 0.1),
        facts.get("system"),
        facts.get("prompt_template"),
        asks="boosted_from" in facts,
        place=place,
    )


@explained("generate", _needed)
def generate(
    model: str | Path | Loaded,
    prompts: Sequence[str],
    settings: GenerateSettings | None = None,
    **changes: Any,
) -> Generated:
    """Answers to ``prompts``, in order.  Keywords are fields of :class:`GenerateSettings`.

    The result is a list of texts; its ``work`` says what the run took: tokens a second, share of
    contested positions, drafts accepted, calls of each model (:class:`springback.decoding.Work`).

    A boosted folder is decoded contrastively with its own lambda and alpha.  Answers are those of
    the plain two-model loop (``reference=True``) up to rounding.  ``dtype``, ``device`` and
    ``device_map`` are those of :func:`load`, for a model that is named here.

    >>> springback.generate("smollm2-135m", ["What is 2 + 3?"], top_p=0.9)  # doctest: +SKIP
    """
    names = [f.name for f in fields(GenerateSettings)]
    if unknown := sorted(set(changes) - set(names)):
        raise SpringbackError(describe(", ".join(unknown), ", ".join(names), "use one of these"))
    wanted = replace(settings or GenerateSettings(), **changes)
    if isinstance(wanted.stop, str):
        wanted = replace(wanted, stop=(wanted.stop,))
    loaded = _at(model, wanted.dtype, wanted.device, wanted.device_map)
    tokenizer = with_chat(loaded.tokenizer, wanted)
    loaded = replace(loaded, tokenizer=tokenizer)
    system = loaded.system if wanted.system is None else wanted.system
    template = loaded.template if wanted.prompt_template is None else wanted.prompt_template
    if template is not None and not wanted.raw:
        prompts = [framed(check_template(template), prompt) for prompt in prompts]
    kind: RowKind = "text" if wanted.raw else "qa" if loaded.asks else "pair"
    rows = [
        Row(kind, p, p if wanted.raw else "", place=f"prompt {number}")
        for number, p in enumerate(prompts, start=1)
    ]
    ids = [
        tokenizer(r.response)["input_ids"] if wanted.raw else encode_prompt(tokenizer, r, system)
        for r in rows
    ]
    how = _decode_settings(loaded, wanted, rows)
    answers = _Answers(tokenizer, wanted.stop, wanted.on_text)
    hooks = Hooks(
        processors=wanted.processors,
        on_token=answers.take if wanted.on_text else None,
        text_of=answers.text_of,
    )
    work = Work()
    if wanted.reference:
        answered = decode(loaded.expert, ids, how, loaded.amateur, hooks=hooks, work=work)
    else:
        model_of_drafts = _draft_model(loaded, wanted.draft_model)
        guess = Speculation(wanted.draft, model=model_of_drafts, cache=wanted.cache)
        fast = decode_fast(loaded.expert, ids, how, loaded.amateur, hooks=hooks, speculation=guess)
        answered, work = fast.answers, fast.work
    return Generated([answers.finish(row, tokens) for row, tokens in enumerate(answered)], work)


def score(
    model: str | Path | Loaded,
    texts: Sequence[str],
    prompts: Sequence[str] | None = None,
    masked: bool = False,
    *,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | Mapping[str, int | str] | None = None,
) -> list[MaskedNLL]:
    """Negative log likelihood of each text under the model, or under the contrasted pair.

    With ``prompts``, texts are answers to them, prompts go through the chat template, and only the
    answers' tokens count; else all but the first token of a bare text.  Normalised over the full
    vocabulary, and 0 tokens are masked; with ``masked`` as the pair decodes: over the plausible
    tokens, and gold tokens that are not plausible are left out, ``masked_share`` of all.
    ``dtype``, ``device`` and ``device_map`` are those of :func:`load`, for a model named here.

    >>> springback.score(folder, ["5"], ["What is 2 + 3?"])[0].per_token  # doctest: +SKIP
    """
    loaded = _at(model, dtype, device, device_map)
    tokenizer = loaded.tokenizer
    if prompts is not None and len(prompts) != len(texts):
        raise SpringbackError(
            describe(
                f"{len(prompts)} prompts for {len(texts)} texts",
                "one for each",
                "give both or none",
            )
        )
    if prompts is None:
        rows = [_bare(tokenizer, text, number) for number, text in enumerate(texts, start=1)]
    else:
        pairs = zip(prompts, texts, strict=True)
        rows = [
            encode_answer(tokenizer, Row("pair", p, t, place=f"text {n}"), t, loaded.system)
            for n, (p, t) in enumerate(pairs, start=1)
        ]
    both = loaded.expert, loaded.amateur or loaded.expert
    if masked:
        return pair_nll_masked(both, rows, tokenizer, loaded.lam, loaded.alpha)
    plain = pair_nll(*both, rows, tokenizer, [loaded.lam])[loaded.lam]
    return [MaskedNLL(scored.nats, scored.tokens, 0) for scored in plain]


def _at(
    model: str | Path | Loaded,
    dtype: str,
    device: str,
    device_map: str | Mapping[str, int | str] | None,
) -> Loaded:
    """``model``, loaded if it is named; raises where one that is loaded would have to move."""
    if not isinstance(model, Loaded):
        return load(model, dtype=dtype, device=device, device_map=device_map)
    if (dtype, device, device_map) != ("auto", "auto", None):
        raise SpringbackError(
            describe(
                "dtype, device or device_map for a model that is loaded",
                "these where it is loaded",
                "give them to springback.load",
            )
        )
    return model


def _bare(tokenizer: Tokenizer, text: str, number: int) -> Encoded:
    ids = tokenizer(text)["input_ids"]
    if len(ids) < 2:
        raise DataError(
            f"text {number} has {len(ids)} tokens; scoring needs 2 or more; leave it out"
        )
    return Encoded(tuple(ids), 1, len(text.encode("utf-8")))


def _draft_model(loaded: Loaded, given: str | Path | PreTrainedModel | None) -> Any:
    """The model that drafts, loaded if it is named; raises if its tokens are others."""
    if given is None or isinstance(given, PreTrainedModel):
        return given
    checkpoint = resolve(given)
    names = ("the model", str(given))
    check_same_tokenizer(loaded.tokenizer, load_tokenizer(checkpoint), names)
    return load_model(checkpoint, loaded.place)


def _decode_settings(
    loaded: Loaded, wanted: GenerateSettings, rows: Sequence[Row]
) -> DecodeSettings:
    ends = stop_ids(loaded.tokenizer, rows[0], loaded.expert) if rows else ()
    return DecodeSettings(
        **wanted.sampling(),
        lam=loaded.lam,
        alpha=loaded.alpha,
        stop_ids=tuple(sorted({*ends, *wanted.stop_ids})),
        pad_id=loaded.tokenizer.pad_token_id,
        stop_strings=wanted.stop,
        keyed_noise=True,
    )


@dataclass
class _Answers:
    """Token ids to text, cut at stop strings, handed out in pieces where asked for."""

    tokenizer: Tokenizer
    stop: tuple[str, ...]
    on_text: Callable[[int, str], None] | None
    ids: dict[int, list[int]] = field(default_factory=dict)
    handed_out: dict[int, int] = field(default_factory=dict)  # characters, by row

    def text_of(self, ids: Sequence[int]) -> str:
        return answer_text(self.tokenizer, ids)

    def _cut(self, text: str) -> str:
        ends = [text.find(s) for s in self.stop if s in text]
        return text[: min(ends)] if ends else text

    def take(self, row: int, token: int) -> None:
        """Hand out what later tokens cannot change: whole characters, no part of a stop string."""
        held = self.ids.setdefault(row, [])
        held.append(token)
        text = self._cut(self.text_of(held))
        wait = max((len(s) for s in self.stop), default=1) - 1
        if not text.endswith("\ufffd") and not may_change(self.tokenizer, token):
            self._tell(row, text[: len(text) - wait])

    def finish(self, row: int, tokens: Sequence[int]) -> str:
        """The whole answer; hands out the rest of it."""
        text = self._cut(self.text_of(tokens))
        self._tell(row, text)
        return text

    def _tell(self, row: int, text: str) -> None:
        have = self.handed_out.get(row, 0)
        if self.on_text and len(text) > have:
            self.handed_out[row] = len(text)
            self.on_text(row, text[have:])
