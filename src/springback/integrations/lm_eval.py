"""The model ``springback`` for lm-eval: a boosted folder, one of its halves, or any model.

lm-eval up to 0.4.13 has no hook for models of other packages, so its own command line is started
by ours, with the model registered and everything else as it is::

    springback lm-eval run --model springback --model_args pretrained=FOLDER --tasks ...

Later ones look for entry points of the group ``lm_eval.models``, where this model is: there a bare
``lm-eval run --model springback`` does.  In Python, importing this module registers the model for
``lm_eval.simple_evaluate``.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from springback.core import Row
from springback.decoding import ContrastModel, DecodeSettings, Hooks, contrast, decode_fast
from springback.errors import ModelError, SpringbackError, describe
from springback.inference import Loaded, load_at
from springback.models.encoding import stop_ids
from springback.models.placement import (
    DTYPES,
    DeviceMap,
    Placement,
    dtype_name,
    placement,
    running_device,
)
from springback.models.templates import chat_of, render, with_chat
from springback.settings import (
    FILTERS,
    ChatSettings,
    ComputeSettings,
    asks_for_nothing,
    parse_arguments,
)

PARTS = ("pair", "expert", "amateur")
#: Copies of a batch's logits that scoring a pair holds at its peak: two halves, their difference,
#: the combination and its log-probabilities.
_LOGIT_COPIES = 5


def halves(loaded: Loaded, part: str) -> tuple[Any, Any]:
    """Strong and weak model (None: decode alone) of ``part``; raises :class:`ModelError`."""
    if part not in PARTS:
        raise ModelError(describe(f"part={part}", ", ".join(PARTS), "change it"))
    if part == "amateur":
        if loaded.amateur is None:
            raise ModelError(
                describe("part=amateur of a model without one", "pair, expert", "change it")
            )
        return loaded.amateur, None
    return loaded.expert, loaded.amateur if part == "pair" else None


def _place(dtype: str | torch.dtype, device: str | None, device_map: DeviceMap | None) -> Placement:
    """Where lm-eval's own words for dtype and device lead; float64 too, which is for tests."""
    name = dtype_name(dtype) if isinstance(dtype, torch.dtype) else dtype
    allowed = ("auto", *DTYPES, "float64")
    if name not in allowed:
        raise ModelError(describe(f"dtype={name}", ", ".join(allowed), "change it"))
    # lm-eval asks for cuda:0 where nobody said so; without one it goes on with the CPU.
    nobody = device is None or (device.startswith("cuda") and not torch.cuda.is_available())
    where = "auto" if nobody or device_map else str(device).replace("mps:0", "mps")
    whole, by_module = (device_map, None) if isinstance(device_map, str) else (None, device_map)
    settings = ComputeSettings(
        dtype="float32" if name == "float64" else name, device=where, device_map=whole
    )
    place = placement(settings, by_module)
    return replace(place, dtype=torch.float64) if name == "float64" else place


def _without_nulls(request: Any) -> Any:
    """A request for text without its options that are null, which lm-eval takes for values."""
    context, options = request.args
    changed = copy.copy(request)
    changed.arguments = (context, {k: v for k, v in options.items() if v is not None})
    return changed


@register_model("springback")
class SpringbackLM(HFLM):  # type: ignore[misc]
    """Log-likelihoods are those of the unmasked pair (:func:`springback.probes.pair_nll`): a gold
    token may be implausible.  Generation masks, as decoding does, by the fast decoder.

    ``pretrained``: what :func:`springback.load` takes.  ``part``: ``pair``, ``expert`` or
    ``amateur``.  ``lam`` and ``alpha`` replace the folder's own.  ``dtype``, ``device`` and
    ``device_map`` are those of :func:`springback.load`; ``parallelize`` is device_map=auto, as in
    lm-eval's ``hf`` model, whose arguments that fit a loaded model are the others (``batch_size``,
    ``max_length``, ...).
    ``chat_template_args`` and ``system_in_user``: as in :class:`ChatSettings`.
    """

    #: What the command line gives the chat template (:func:`main`).
    chat = ChatSettings()

    def __init__(
        self,
        pretrained: str,
        part: str = "pair",
        lam: float | None = None,
        alpha: float | None = None,
        dtype: str | torch.dtype = "auto",
        device: str | None = None,
        device_map: DeviceMap | None = None,
        parallelize: bool | None = False,
        seed: int = 0,
        **options: Any,
    ) -> None:
        spread = device_map or ("auto" if parallelize else None)
        loaded = load_at(pretrained, _place(dtype, device, spread))
        strong, weak = halves(loaded, part)
        if lam is not None and lam > 0 and weak is None:
            raise ModelError(
                describe(f"lam={lam} with one model", "a boosted folder's pair", "leave lam out")
            )
        self._lam = loaded.lam if lam is None else float(lam)
        self._alpha = loaded.alpha if alpha is None else float(alpha)
        if weak is None or self._lam == 0:
            self._lam, weak = 0.0, None
        contrast.check_settings(self._lam, self._alpha)
        self._strong, self._weak = strong, weak
        scored = strong
        if weak is not None:
            scored = ContrastModel.from_pair(strong, weak, self._lam, self._alpha)
            scored.config.masked = False
        self._seed, self._calls, self._generating = int(seed), 0, False
        tokenizer = with_chat(loaded.tokenizer, self.chat)
        given = ChatSettings(
            chat_template_args=options.get("chat_template_args") or {},
            system_in_user=bool(options.pop("system_in_user", False)),
        )
        tokenizer = with_chat(tokenizer, given)
        if (thinking := options.get("enable_thinking")) is not None:
            given = ChatSettings(chat_template_args={"enable_thinking": thinking})
            tokenizer = with_chat(tokenizer, given)
        super().__init__(scored, backend="causal", tokenizer=tokenizer, **options)
        self._device = running_device(scored)  # the first weight of a spread model may be away

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """As everything else here applies it; lm-eval's own drops a system message it refuses."""
        turns = [(message["role"], message["content"]) for message in chat_history]
        ends = {"prompt": add_generation_prompt, "continues": not add_generation_prompt}
        return render(self.tokenizer, turns, "a question", **ends)

    def get_model_info(self) -> dict[str, Any]:
        """lm-eval's record of the model, with what its chat template was given."""
        info: dict[str, Any] = super().get_model_info()
        return {**info, **chat_of(self.tokenizer).chat_inputs()}

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        self._generating = True
        try:
            asked = [_without_nulls(request) for request in requests]
            answers: list[str] = super().generate_until(asked, disable_tqdm)
        finally:
            self._generating = False
        return answers

    def _model_generate(
        self,
        context: Tensor,
        max_length: int,
        stop: Sequence[str],
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """Token ids (rows, context and answers), padded at the end."""
        mask = torch.ones_like(context) if attention_mask is None else attention_mask
        prompts = [ids[kept.bool()].tolist() for ids, kept in zip(context, mask, strict=True)]
        new, pad = max_length - context.shape[1], self.tokenizer.pad_token_id
        how = self._decode_settings(new, pad, tuple(s for s in stop if s), options)

        def text_of(ids: Sequence[int]) -> str:
            return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

        hooks = Hooks(text_of=text_of)
        answers = decode_fast(self._strong, prompts, how, self._weak, hooks=hooks).answers
        self._calls += 1
        longest = max(map(len, answers))
        rows = [answer + [pad] * (longest - len(answer)) for answer in answers]
        made = torch.tensor(rows, dtype=context.dtype).reshape(len(rows), longest)
        return torch.cat([context.cpu(), made], dim=1)

    def _decode_settings(
        self, new: int, pad: int, stop: tuple[str, ...], options: dict[str, Any]
    ) -> DecodeSettings:
        options = {k: v for k, v in options.items() if not asks_for_nothing(k, v)}
        sampled = options.pop("do_sample", None)
        temperature = float(options.pop("temperature", 1.0 if sampled else 0.0))
        filters = {name: options.pop(name) for name in FILTERS if name in options}
        for name in ("use_cache", "pad_token_id"):  # they change no answer
            options.pop(name, None)
        if options:
            raise SpringbackError(
                describe(
                    f"generation options {', '.join(sorted(options))}",
                    f"do_sample, temperature, until, max_gen_toks, {', '.join(FILTERS)}",
                    "take them out of the task or of --gen_kwargs",
                )
            )
        return DecodeSettings(
            max_new_tokens=new,
            lam=self._lam,
            alpha=self._alpha,
            temperature=temperature if sampled is not False else 0.0,
            seed=1_000_003 * self._seed + self._calls,  # each batch its own noise
            stop_ids=stop_ids(self.tokenizer, Row("chat", "", ""), self._strong),
            pad_id=pad,
            stop_strings=stop,
            keyed_noise=True,
            **filters,
        )

    def _detect_batch_size(self, requests: Any = None, pos: int = 0) -> int:
        """lm-eval tries sizes until memory runs out; on a CPU that ends in a killed process, so
        the size is reckoned from half of the free memory there."""
        if self.device.type != "cpu":
            size: int = super()._detect_batch_size(requests, pos)
            return size
        length = self.max_length
        if requests:
            _, context, continuation = requests[pos]
            length = min(length, len(context) + len(continuation))
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        rows = free // (length * self._bytes_a_token())
        return int(min(max(rows, 1), int(self.max_batch_size or 64)))

    def _bytes_a_token(self) -> int:
        """Memory that a token of a batch takes: its logits when scoring, keys and values else."""
        config: Any = self._strong.config.get_text_config()
        width = self._strong.dtype.itemsize
        if not self._generating:
            return int(max(width, 4) * _LOGIT_COPIES * config.vocab_size)
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        both = 1 if self._weak is None else 2
        return int(both * config.num_hidden_layers * 2 * heads * size * width)


def main(arguments: Sequence[str] | None = None) -> None:
    """lm-eval's own command line, with the model ``springback`` and two flags of ours known."""
    from lm_eval.__main__ import cli_evaluate

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--chat-template-args", action="append", default=[])
    parser.add_argument("--system-in-user", action="store_true")
    ours, theirs = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    chat = ChatSettings(
        chat_template_args=parse_arguments(ours.chat_template_args),
        system_in_user=ours.system_in_user,
    )
    held, held_chat = sys.argv, SpringbackLM.chat
    sys.argv, SpringbackLM.chat = ["springback lm-eval", *theirs], chat
    try:
        cli_evaluate()
    finally:
        sys.argv, SpringbackLM.chat = held, held_chat


if __name__ == "__main__":
    main()
