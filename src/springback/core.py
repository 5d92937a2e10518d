"""The nouns.  Frozen dataclasses, standard library only.

A study is a list of :class:`Run`; a run's id is the hash of what goes into it, so
equal work is done once and a finished run is recognised on any machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

RowKind = Literal["text", "pair", "qa", "chat", "prompt"]

#: Part of every run's id: raised when a change of the code changes what a run finds.
RESULTS_VERSION = 1
SCHEDULES = ("constant", "linear", "cosine")
PRECISIONS = ("bf16-mixed", "float32")


def byte_size(count: float) -> str:
    """Bytes in words: "1.5 GB", below that "320 MB", below that "7 kB"."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


#: What steers a terminal or a log, or turns round what stands behind it: control codes (C0 with
#: escape, DEL, C1), overrides of direction, separators of lines; also tabs and breaks.
_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def printable(text: str, *, lines: bool = False) -> str:
    """``text`` with what would steer a terminal spelt out, as ``\\x1b``.

    Names of files, models and tensors, texts of templates and rows are written by others.  With
    ``lines`` the text is a block of lines: its breaks and tabs stay; else it stays one line.
    """
    kept = "\n\t" if lines else ""
    return _STEERING.sub(lambda m: m[0] if m[0] in kept else ascii(m[0])[1:-1], text)


def to_jsonable(value: Any) -> Any:
    """Plain JSON types out of dataclasses, tuples and mappings; NaN and infinity become None.

    Left out: fields made by :func:`added` that stand at their default, and those whose metadata say
    ``internal``.  The key is the field's name, or the ``key`` of its metadata.
    """
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.metadata.get("key", f.name): to_jsonable(getattr(value, f.name))
            for f in dataclasses.fields(value)
            if not f.metadata.get("internal")
            and not (f.metadata.get("added") and getattr(value, f.name) in (f.default, {}))
        }
    if isinstance(value, Mapping):
        return {str(k): to_jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(v) for v in value]
    raise TypeError(f"not serialisable as JSON: {type(value).__name__}")


def canonical_json(value: Any) -> str:
    """The one spelling of a value that hashes are taken of: sorted keys, no spaces."""
    return json.dumps(to_jsonable(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def content_hash(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of ``value``."""
    # Half characters, as of a path that is not UTF-8, have bytes of their own.
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


#: Metadata of a field that is left out of JSON where it stands at its default.
ABSENT = {"added": True}


def added(default: Any) -> Any:
    """A field that came after runs were committed: at its default it does not change a hash."""
    return field(default=default, metadata=ABSENT)


def on_first_use(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package whose names are loaded on first use.

    ``homes``: names, with spaces between, by the module of the package that they stand in.  What
    is light below such a package can then be imported without the rest of it.
    """
    module_of = {name: module for module, names in homes.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return get


@dataclass(frozen=True)
class Checkpoint:
    """A model: a folder, a hub id or a built-in name, with what pins it down.

    ``content_hash`` is taken over the weight files' bytes (or, for a hub id, its
    resolved revision); it is empty until :func:`springback.models.loading.resolve` filled it.
    """

    path: str
    revision: str | None = None
    adapter: str | None = None
    content_hash: str = ""


@dataclass(frozen=True)
class Row:
    """One example.

    ``text``: ``response`` is the whole text, ``prompt`` is empty.
    ``pair`` and ``chat``: asked ``prompt`` (after ``turns``), the model should say ``response``.
    ``qa``: ``prompt`` is the question, ``response`` the reference solution (may be empty) and
    ``answer`` what is graded: a number, a choice letter or several (``ACD``), or an exact string.
    ``metric`` is how, where the row says so itself.
    ``prompt``: like ``qa``, but without a chat template ``prompt`` stands as it is.
    ``rejected``: in preference data, an answer to ``prompt`` that ``response`` is preferred to.
    ``place``: where the row was read; no part of what it is.
    """

    kind: RowKind
    prompt: str
    response: str
    answer: str | None = None
    choices: tuple[str, ...] = ()
    turns: tuple[tuple[str, str], ...] = ()
    label: str | None = None
    metric: str | None = added(None)
    rejected: str | None = added(None)
    place: str = field(default="", compare=False, repr=False, metadata={"internal": True})

    @property
    def named(self) -> str:
        """How an error names the row: by its place, never by its text, which may be harmful."""
        return self.place or "a row"


@dataclass(frozen=True)
class Slice:
    """Rows taken from a data set, in the order they are used, with the seed that drew them."""

    name: str
    source: str
    rows: tuple[Row, ...]
    seed: int = 0
    content_hash: str = ""

    @classmethod
    def of(cls, name: str, source: str, rows: Iterable[Row], seed: int = 0) -> Slice:
        """A slice whose hash is taken over its rows in order (name and source do not count)."""
        kept = tuple(rows)
        return cls(name, source, kept, seed, content_hash(kept))

    def take(self, n: int, name: str | None = None) -> Slice:
        """The first ``n`` rows, so that a longer run extends a shorter one."""
        return Slice.of(name or self.name, self.source, self.rows[:n], self.seed)

    def __len__(self) -> int:
        return len(self.rows)

    def describe(self) -> dict[str, Any]:
        """What a result file records of a slice: everything but the rows."""
        return {
            "name": self.name,
            "source": self.source,
            "rows": len(self.rows),
            "seed": self.seed,
            "content_hash": self.content_hash,
        }


#: What an example is to an algorithm: a row; two answers to one prompt; an answer with its label;
#: a prompt whose sampled answers get a reward (:mod:`springback.training.examples`).
ExampleForm = Literal["rows", "pairs", "labelled", "prompts"]


@dataclass(frozen=True)
class Algorithm:
    """An algorithm to fine-tune by.

    ``trainer``: the function that builds its trainer out of a run and the arguments that all
    trainers share, or ``module:function`` of it, which is loaded when it is needed.  ``beta``: the
    recipe's where it says none; None for an algorithm without.  ``options``: the other fields of a
    recipe that not every algorithm reads and this one does.
    ``forward_passes``: passes over a row without a gradient that an example takes, for plans.
    """

    learns: ExampleForm
    trainer: str | Callable[..., Any]
    beta: float | None = None
    options: tuple[str, ...] = ()
    forward_passes: int = 0

    @property
    def preference(self) -> bool:
        """Whether it learns from wanted and unwanted answers together."""
        return self.learns in ("pairs", "labelled")

    def reads(self, option: str) -> bool:
        """Whether the recipe's field of that name is one of its own."""
        return option in self.options or (option == "beta" and self.beta is not None)


_TRL = "springback.training.preference"
#: Every algorithm that a recipe may name.  A new one is an entry here and a file with its trainer;
#: outside the package, an entry made before a recipe names it.
ALGORITHMS = {
    "sft": Algorithm("rows", "springback.training.sft:build"),
    "dpo": Algorithm("pairs", f"{_TRL}:build_dpo", beta=0.1, forward_passes=2),
    "kto": Algorithm(
        "labelled",
        f"{_TRL}:build_kto",
        beta=0.1,
        options=("desirable_weight", "undesirable_weight"),
        forward_passes=3,
    ),
    "simpo": Algorithm("pairs", f"{_TRL}:build_simpo", beta=2.0, options=("gamma",)),
    "orpo": Algorithm("pairs", f"{_TRL}:build_orpo", beta=0.1),
    "rloo": Algorithm(
        "prompts",
        f"{_TRL}:build_rloo",
        beta=0.05,
        options=("generations", "new_tokens", "temperature"),
        forward_passes=1,
    ),
}


def algorithms_reading(option: str) -> list[str]:
    """The algorithms that a recipe's field belongs to; none where it belongs to all."""
    return [name for name, algorithm in ALGORITHMS.items() if algorithm.reads(option)]


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune.  The learning rate is constant by default, since branch points need it.

    ``lora_rank`` None or 0: full weights, whatever ``lora_alpha`` is given.  ``beta`` is the weight
    of the reference (DPO, KTO), the reward's scale (SimPO), the weight of the odds ratio (ORPO) or
    of the KL (RLOO); None is the algorithm's usual one (:data:`ALGORITHMS`), filled in at once.
    ``gamma``: SimPO's target margin, in nats.  RLOO samples ``generations`` answers of at most
    ``new_tokens`` tokens to every prompt.
    """

    algorithm: str = "sft"
    lora_rank: int | None = None
    learning_rate: float = 1e-5
    batch_size: int = 16
    epochs: int = 1
    seed: int = 0
    max_tokens: int = 128
    schedule: str = "constant"
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    precision: str = "bf16-mixed"
    lora_alpha: int = added(16)
    beta: float | None = added(None)
    gamma: float = added(1.0)
    desirable_weight: float = added(1.0)
    undesirable_weight: float = added(1.0)
    generations: int = added(4)
    new_tokens: int = added(32)
    temperature: float = added(1.0)

    def __post_init__(self) -> None:
        # One spelling for one recipe, so that equal work has equal ids.
        if not self.lora_rank:
            object.__setattr__(self, "lora_rank", None)
            object.__setattr__(self, "lora_alpha", type(self).lora_alpha)
        if self.beta is None and self.algorithm in ALGORITHMS:
            object.__setattr__(self, "beta", ALGORITHMS[self.algorithm].beta)


@dataclass(frozen=True)
class Run:
    """One planned job.  ``id`` is the hash of ``kind`` and ``inputs``."""

    kind: str
    inputs: Mapping[str, Any]
    id: str

    @classmethod
    def of(cls, kind: str, **inputs: Any) -> Run:
        plain = to_jsonable(inputs)
        key = {"kind": kind, "inputs": plain, "results": RESULTS_VERSION}
        return cls(kind, plain, content_hash(key)[:20])

    @property
    def name(self) -> str:
        """Folder name of the run in the store."""
        return f"{self.kind}-{self.id}"


@dataclass(frozen=True)
class Point:
    """One checkpoint of a trajectory and the number of examples seen when it was taken."""

    examples: int
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Trajectory:
    """The ordered checkpoints of one run."""

    run_id: str
    points: tuple[Point, ...]

    def at(self, examples: int) -> Checkpoint:
        for point in self.points:
            if point.examples == examples:
                return point.checkpoint
        have = [p.examples for p in self.points]
        raise KeyError(f"no checkpoint at {examples} examples; there are {have}")


@dataclass(frozen=True)
class Measurement:
    """One measured value.

    Attributes:
        probe: what was measured
        checkpoint: of what
        slice: on what
        value: null if it is not a number
        unit: of the value
        per_example: the values that it is the mean of, which a result file does not hold
        tags: see below
    """

    probe: str
    checkpoint: str = ""
    slice: str = ""
    value: float | None = None
    unit: str = ""
    per_example: tuple[float, ...] = field(default=(), metadata={"internal": True})
    tags: Mapping[str, Any] = field(default_factory=dict)
