"""The pair that is measured, and the prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from springback.core import Recipe, Row
from springback.data import load_slice
from springback.decoding import DecodeSettings
from springback.decoding.lora_pair import twin_of
from springback.inference import Loaded, load
from springback.jobs.boost.epochs import train_epochs
from springback.jobs.boost.export import Strengths, write_boosted
from springback.models.encoding import encode_prompt, stop_ids
from springback.models.loading import default_precision, load_model, load_tokenizer, resolve
from springback.progress import Silent
from springback.results.store import Store
from springback.weights import AdapterExtrapolation, Contrast, write_adapter_pair

Answers = list[list[int]]
MU = 0.3


@dataclass
class Subject:
    """Two models and how they are decoded; ``tokenizer`` None: a random pair."""

    expert: Any
    amateur: Any
    settings: DecodeSettings
    tokenizer: Any = None
    system: str | None = None
    cache: str = "dynamic"  # of the fast decoder

    def to(self, dtype: str, device: str = "") -> None:
        """Move both models; ``device`` empty: they stay where they are."""
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise SystemExit("--device cuda: PyTorch finds no CUDA device here; leave it out")
        for model in {id(m): m for m in self.models()}.values():
            model.to(getattr(torch, dtype))
            if device:
                model.to(device)

    def models(self) -> list[Any]:
        """Expert, amateur and, of two adapters on one base, the model that runs both."""
        both = twin_of(self.expert, self.amateur)
        return [self.expert, self.amateur, *([] if both is None else [both])]

    def prompts(self, source: str, count: int) -> Answers:
        """Token ids of ``count`` prompts; a random pair gets random ones."""
        if self.tokenizer is None:
            torch.manual_seed(1)
            return [torch.randint(0, 2048, (24,)).tolist() for _ in range(count)]
        rows = load_slice(source, limit=count, seed=0, split="test").rows
        found = []
        for row in rows:
            if row.kind == "text":  # a text of its own: its beginning is the prompt
                found.append(self.tokenizer(row.response)["input_ids"][:48])
            else:
                found.append(encode_prompt(self.tokenizer, row, self.system))
        return found


def subject_of(loaded: Loaded) -> Subject:
    """What ``springback.load`` gave, as the thing to measure."""
    if loaded.amateur is None:
        raise SystemExit("lambda is 0: there is no pair to decode with")
    settings = DecodeSettings(
        lam=loaded.lam,
        alpha=loaded.alpha,
        stop_ids=stop_ids(loaded.tokenizer, Row("pair", "", "")),
        pad_id=loaded.tokenizer.pad_token_id,
        keyed_noise=True,
    )
    return Subject(loaded.expert, loaded.amateur, settings, loaded.tokenizer, loaded.system)


def trained_pair(folder: Path, train: str, rows: int) -> Path:
    """The boosted folder of SmolLM2-135M fine-tuned for two epochs; made once."""
    target = folder / "model"
    if target.exists():
        return target
    recipe = Recipe(epochs=2, max_tokens=384, precision=default_precision())
    part = load_slice(train, limit=rows, seed=0)
    print(f"fine-tuning smollm2-135m on {rows} rows of {train}, 2 epochs", flush=True)
    start = resolve("smollm2-135m")
    done = train_epochs(start, part, recipe, Store(folder / "training"), Silent())
    early, ft = (point.checkpoint for point in done.points)
    write_boosted((early, ft), Strengths(MU, 1.0, 0.1), target)
    return target


def adapter_pair(folder: Path) -> tuple[Path, Path]:
    """(base, pair): two random LoRA adapters of rank 8 on SmolLM2-135M, as ``extrapolate`` writes.

    For memory and identity only: what the adapters have learned changes neither.
    """
    from peft import LoraConfig, get_peft_model

    base = Path(resolve("smollm2-135m").path)
    found = []
    for seed, name in enumerate(("early", "ft")):
        target = folder / name
        found.append(target)
        if target.exists():
            continue
        torch.manual_seed(seed)
        config = LoraConfig(task_type="CAUSAL_LM", r=8, target_modules="all-linear")
        model: Any = get_peft_model(load_model(resolve(base)), config)
        with torch.no_grad():
            for key, weight in model.named_parameters():
                if "lora_B" in key:
                    weight.add_(0.02 * torch.randn_like(weight))
        model.peft_config["default"].base_model_name_or_path = str(base)
        model.save_pretrained(str(target))
        load_tokenizer(resolve(base)).save_pretrained(target)
    pair = folder / "pair"
    write_adapter_pair(found, AdapterExtrapolation(MU), Contrast(1.0), pair)
    return base, pair


def tiny_subject(lam: float) -> Subject:
    """A random pair, for a look at the overheads: the models cost next to nothing."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        initializer_range=0.3,
    )
    pair: list[Any] = [LlamaForCausalLM(config) for _ in range(2)]
    pair[1].load_state_dict(pair[0].state_dict())
    with torch.no_grad():
        for p in pair[1].parameters():
            p.add_(0.003 * torch.randn_like(p))
        for model in pair:
            model.model.norm.weight.mul_(4)  # uneven odds: some positions are contested, not all
    for model in pair:
        model.eval()
    return Subject(pair[0], pair[1], DecodeSettings(lam=lam, keyed_noise=True))


def subject(model: str | None, tiny: bool, folder: Path, train: str, rows: int) -> Subject:
    """The pair asked for: a folder, a tiny one, or one that is made here."""
    if tiny:
        return tiny_subject(1.0)
    return subject_of(load(model or trained_pair(folder, train, rows)))


def with_limit(found: Subject, tokens: int, batch: int = 1, endless: bool = False) -> Subject:
    """The same pair with another limit; ``endless``: no token ends an answer."""
    s = replace(found.settings, max_new_tokens=tokens, batch_size=batch)
    if endless:
        s = replace(s, forbidden_ids=s.stop_ids, stop_ids=())
    return replace(found, settings=s)
