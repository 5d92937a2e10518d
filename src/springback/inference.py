"""Load a plain or boosted model folder and generate with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedModel

from springback.core import Row
from springback.decode import DecodeSettings, decode
from springback.encode import encode_prompt, stop_ids
from springback.errors import ModelError
from springback.models import BOOST_FILE, Tokenizer, load_model, load_tokenizer, resolve
from springback.store import read_json


@dataclass(frozen=True)
class Loaded:
    """A model ready to decode: ``amateur`` is None for a plain model or lambda 0."""

    expert: PreTrainedModel
    amateur: PreTrainedModel | None
    tokenizer: Tokenizer
    lam: float = 0.0
    alpha: float = 0.1
    system: str | None = None


def load(model: str | Path) -> Loaded:
    """Load a built-in name, a model folder, a hub id, or the folder that ``boost`` wrote.

    Weights are loaded in fp32.  Raises :class:`springback.errors.ModelError`.

    >>> loaded = springback.load("springback-boost/model")  # doctest: +SKIP
    """
    checkpoint = resolve(model)
    facts_file = Path(checkpoint.path) / BOOST_FILE
    facts = read_json(facts_file) if facts_file.exists() else {}
    expert, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    system = facts.get("system")
    if facts.get("kind") != "boosted" or not facts.get("lambda"):
        return Loaded(expert, None, tokenizer, system=system)
    name = str(facts.get("amateur", ""))
    folder = (Path(checkpoint.path) / name).resolve()
    if not name or not folder.is_relative_to(Path(checkpoint.path).resolve()):
        raise ModelError(
            f"{facts_file} names the weak model {name!r}, which is not inside the folder; "
            "write the folder again with springback boost"
        )
    amateur = load_model(resolve(folder))
    return Loaded(expert, amateur, tokenizer, float(facts["lambda"]), float(facts["alpha"]), system)


def generate(
    model: str | Path | Loaded,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 0,
    system: str | None = None,
    raw: bool = False,
) -> list[str]:
    """Answers to ``prompts``, in order: greedy, or sampled when ``temperature`` is above 0.

    A prompt goes through the model's chat template (``raw=True`` continues it as bare text).  A
    boosted folder is decoded contrastively with its own lambda and alpha, after its own system
    message unless ``system`` is given.

    >>> springback.generate("smollm2-135m", ["What is 2 + 3?"])  # doctest: +SKIP
    """
    loaded = model if isinstance(model, Loaded) else load(model)
    tokenizer = loaded.tokenizer
    system = loaded.system if system is None else system
    rows = [Row("text" if raw else "pair", p, p if raw else "") for p in prompts]
    ids = [
        tokenizer(r.response)["input_ids"] if raw else encode_prompt(tokenizer, r, system)
        for r in rows
    ]
    settings = DecodeSettings(
        max_new_tokens=max_new_tokens,
        lam=loaded.lam,
        alpha=loaded.alpha,
        temperature=temperature,
        seed=seed,
        pad_id=tokenizer.pad_token_id,
    )
    if rows:
        settings = replace(settings, stop_ids=stop_ids(tokenizer, rows[0]))
    found = decode(loaded.expert, ids, settings, loaded.amateur)
    return [str(tokenizer.decode(i, skip_special_tokens=True)) for i in found]
