"""Write the boosted folder: extrapolated weights, the weak model beside them, how to decode.

Of two adapters it holds adapters, as ``load`` and ``serve`` take them; a full model of them is what
``springback extrapolate --materialise`` writes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from springback.core import Checkpoint, Row
from springback.integrations.boosted_folder import complete
from springback.models.encoding import stop_ids
from springback.models.loading import (
    BOOST_FILE,
    GENERATION_CONFIG,
    end_ids_of,
    load_tokenizer,
    read_configs,
    tokenizer_source,
)
from springback.progress import Silent
from springback.results.store import (
    clear_folder,
    link_or_copy,
    read_json,
    require_folder,
    write_json,
)
from springback.settings import ChatSettings
from springback.weights import Extrapolation, extrapolate, extrapolate_along
from springback.weights.adapters.extrapolation import AdapterExtrapolation, extrapolate_adapters
from springback.weights.adapters.pair import AMATEUR_FOLDER
from springback.weights.io.folder import ADAPTER, ADAPTER_CONFIG
from springback.weights.span import shares_of


@dataclass(frozen=True)
class Strengths:
    """What the search chose."""

    mu: float
    lam: float
    alpha: float
    #: A point that the run's checkpoints span, in place of mu (:mod:`springback.weights.span`).
    point: tuple[float, ...] | None = None


def write_boosted(
    line: Sequence[Checkpoint],
    strengths: Strengths,
    out: Path,
    system: str | None = None,
    template: str | None = None,
    chat: ChatSettings | None = None,
) -> None:
    """``out``: the extrapolated model, ``out/amateur``: the fine-tuned one (lambda above 0 only).

    ``line``: checkpoints of one run, the last two of which are early and ft.

    ``out/custom_generate`` decodes a full model with Transformers alone.

    ``system`` and ``template`` are the system message and the frame of a question (``{question}``
    in it) that the strengths were chosen with, ``chat`` what the chat template was given;
    generate uses them again.

    Appears only when whole; nothing is done if the same folder is there already.
    """
    *before, early, ft = line
    mu, lam = strengths.mu, strengths.lam
    facts: dict[str, Any] = {"mu": mu, "lambda": lam, "alpha": strengths.alpha, "system": system}
    facts |= {"prompt_template": template, **(chat or ChatSettings()).chat_inputs()}
    names = {*facts, *(f.name for f in fields(ChatSettings))}
    sources: dict[str, Any] = {"early": early.content_hash, "ft": ft.content_hash}
    shares = None
    if strengths.point is not None and any(strengths.point[:-1]):
        shares = shares_of(strengths.point)
        facts |= {"mu": None, "shares": list(shares)}
        sources["before"] = [checkpoint.content_hash for checkpoint in before]
    require_folder(out)
    if (out / BOOST_FILE).exists():
        have = read_json(out / BOOST_FILE)
        same = all(have.get(name) == facts.get(name) for name in names)
        if same and have.get("boosted_from") == sources:
            return
    new = out.with_name(f".{out.name}.new")
    clear_folder(new)
    amateur = AMATEUR_FOLDER if lam > 0 else None
    if ft.adapter is None:
        if shares is None:
            extrapolate(early.path, ft.path, mu, new, progress=Silent())
        else:
            every = [checkpoint.path for checkpoint in line]
            extrapolate_along(every, Extrapolation(1.0, shares=shares), new)
        record = {**read_json(new / BOOST_FILE), "kind": "boosted"}
    else:
        adapters = [str(c.adapter) for c in (line if shares else (early, ft))]
        how = AdapterExtrapolation(1.0 if shares else mu, base=ft.path, shares=shares)
        extrapolate_adapters(adapters, how, new)
        record = read_json(new / BOOST_FILE)
    _name_end_tokens(new, ft)
    if amateur is not None:
        (new / amateur).mkdir()
        for path in _model_files(ft):
            link_or_copy(path, new / amateur / path.name)
    record |= {**facts, "amateur": amateur, "boosted_from": sources}
    write_json(new / BOOST_FILE, record)
    if ft.adapter is None:
        complete(new)
    clear_folder(out)
    os.replace(new, out)


def plain_load_note(folder: Path, adapters: bool) -> str:
    """What is lost where a folder with contrast is opened without springback, which cannot warn."""
    alone = "" if adapters else ", or trust_remote_code=True, which runs its custom_generate"
    return (
        f"{folder} was measured with contrast; a plain from_pretrained or pipeline() loads its "
        f"strong model alone and says nothing: use springback.generate or serve{alone}"
    )


def _model_files(ft: Checkpoint) -> list[Path]:
    """Of an adapter its weights and settings: folders of a training hold its state beside them."""
    if ft.adapter is not None:
        return [Path(ft.adapter) / name for name in (ADAPTER_CONFIG, ADAPTER)]
    return [p for p in sorted(Path(ft.path).iterdir()) if p.is_file() and p.suffix != ".py"]


def _name_end_tokens(folder: Path, ft: Checkpoint) -> None:
    """Have generation_config.json list every token that ended an answer when it was measured.

    springback adds those of the tokenizer and of its template by itself; what decodes the folder
    without springback reads this file alone.
    """
    if ft.adapter is None:
        configs, tokens = read_configs(folder), Checkpoint(str(folder))
    else:
        configs, tokens = read_configs(ft.path, folder), tokenizer_source(folder, ft)
    ends = stop_ids(load_tokenizer(tokens), Row("qa", "", ""), configs)
    if end_ids_of(configs.generation_config).issuperset(ends):
        return
    generation = configs.generation_config.to_diff_dict()
    write_json(folder / GENERATION_CONFIG, {**generation, "eos_token_id": list(ends)})
