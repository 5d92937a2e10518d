"""What vLLM needs to know of a folder.  Imports neither vLLM nor torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from springback.errors import ModelError, describe
from springback.models.hub import base_of, local_folder
from springback.results.store import read_json
from springback.settings import ChatSettings
from springback.weights import is_adapter
from springback.weights.io.report import RECORD

#: The architectures that the plugin registers: two sets of weights, two adapters on one base.
PAIR, TWIN = "SpringbackPair", "SpringbackTwin"
#: Where, in the configuration of the base, the folder with the two adapters is named.
FOLDER_KEY = "springback_folder"
#: In the same place, of a boost: the weak model's folder at the start; no folder need hold a pair.
AMATEUR_KEY = "springback_amateur"
#: In the same place, of a boost: the adapters that a request weighs, in place of the pair's two.
LINE_KEY = "springback_line"
#: In the same place: whether the amateur's head reads only rows where it can change the choice.
LAZY_KEY = "springback_lazy_head"
#: Keys of a request's ``vllm_xargs``.
LAMBDA, ALPHA = "lambda", "alpha"
#: In the same place, where there is a line: the weights of its adapters in the strong model and in
#: the weak one, None for no weak one.
SIDES = "springback_sides"
#: ``--logits-processors`` of a server that takes them.
PROCESSOR = "springback.integrations.vllm.request_lambda:RequestStrengths"


@dataclass(frozen=True)
class Folder:
    """``model``: what vLLM loads, the base in the case of adapters.

    ``amateur``: the weak model's folder, None without contrast.  ``adapter``: the expert's adapter.
    """

    model: Path
    amateur: Path | None = None
    adapter: Path | None = None
    lam: float = 0.0
    alpha: float = 0.1
    system: str | None = None
    chat: ChatSettings = field(default_factory=ChatSettings)

    @property
    def architecture(self) -> str | None:
        """The registered class that decodes it; None for vLLM's own."""
        if self.amateur is None:
            return None
        return PAIR if self.adapter is None else TWIN

    def overrides(self) -> dict[str, Any]:
        """vLLM's ``hf_overrides``: the class, and for adapters where they are."""
        if self.architecture is None:
            return {}
        held: dict[str, Any] = {"architectures": [self.architecture]}
        if self.adapter is not None:
            held[FOLDER_KEY] = str(self.adapter)
        return held


def open_folder(name: str | Path, base: str | Path | None = None) -> Folder:
    """A plain or boosted folder, an adapter or a pair of adapters; or the hub id of one.

    Raises :class:`ModelError` for one that is not whole, or of a kind that vLLM cannot take.
    """
    root = local_folder(str(name)).absolute()
    facts = _facts(root)
    if facts.get("kind") == "contrast":
        raise ModelError(
            describe(
                f"{name}, which ContrastModel wrote",
                "for vLLM: the folder that springback boost wrote",
                "name that one, or leave --engine vllm out",
            )
        )
    if is_adapter(root):
        return _adapters(root, facts, base)
    boosted = facts.get("kind") == "boosted" and float(facts.get("lambda") or 0) > 0
    folder = Folder(_with_weights(root), **_prompt(facts))
    return _with_amateur(folder, root, facts) if boosted else folder


def _adapters(root: Path, facts: Mapping[str, Any], base: str | Path | None) -> Folder:
    model = base_of([root], base).absolute()
    folder = Folder(_with_weights(model), adapter=_with_weights(root), **_prompt(facts))
    return _with_amateur(folder, root, facts) if float(facts.get("lambda") or 0) > 0 else folder


def _with_amateur(folder: Folder, root: Path, facts: Mapping[str, Any]) -> Folder:
    weak = (root / str(facts.get("amateur") or "")).resolve()
    if weak == root.resolve() or not weak.is_relative_to(root.resolve()):
        raise ModelError(
            describe(
                f"the weak model {facts.get('amateur')!r} of {root / RECORD}",
                "a folder inside this one",
                "write the folder again",
            )
        )
    lam, alpha = float(facts["lambda"]), float(facts.get("alpha") or 0.1)
    return replace(folder, amateur=_with_weights(weak), lam=lam, alpha=alpha)


def _prompt(facts: Mapping[str, Any]) -> dict[str, Any]:
    """System message and what the chat template is given, as the folder was measured."""
    return {"system": facts.get("system"), "chat": ChatSettings.recorded(facts)}


def _facts(root: Path) -> dict[str, Any]:
    return dict(read_json(root / RECORD)) if (root / RECORD).exists() else {}


def _with_weights(folder: Path) -> Path:
    """``folder``; raises unless it has safetensors: vLLM would go on to look for pickles."""
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            describe(f"{folder} without safetensors", "weights as safetensors", "write them again")
        )
    return folder


def strengths_of(extra: Mapping[str, Any] | None) -> tuple[float | None, float | None]:
    """Lambda and alpha that a request asks for in ``vllm_xargs``; None where it does not.

    Raises :class:`ValueError`, which vLLM answers with status 400.
    """
    strengths: list[float | None] = []
    for name, allowed in ((LAMBDA, "0 or more"), (ALPHA, "above 0 and at most 1")):
        given = (extra or {}).get(name)
        if given is None:
            strengths.append(None)
            continue
        try:
            value = float(given)
        except (TypeError, ValueError):
            value = float("nan")
        low_enough = value < float("inf") if name == LAMBDA else value <= 1
        if not (low_enough and (value >= 0 if name == LAMBDA else value > 0)):
            raise ValueError(describe(f"{name} {given!r}", f"a number {allowed}", "change it"))
        strengths.append(value)
    return strengths[0], strengths[1]
