"""The entry point of vLLM's plugins, and what vLLM may be asked for with a pair."""

from __future__ import annotations

from functools import partial
from typing import Any

from springback.core import Checkpoint
from springback.errors import describe
from springback.integrations.vllm import runners
from springback.integrations.vllm.build import folder_of, half_architectures
from springback.integrations.vllm.end_tokens import generation_config
from springback.integrations.vllm.folder import PAIR, PROCESSOR, TWIN
from springback.models.loading import load_tokenizer

#: Ways to load that go through the loader which asks a model for further sources of weights.
_LOADERS = ("auto", "hf", "safetensors", "fastsafetensors")


def register() -> None:
    """Tell vLLM of both classes.  Called in each of its processes, also more than once."""
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP, VerifyAndUpdateConfig

    class Checked(VerifyAndUpdateConfig):  # type: ignore[misc]
        """vLLM asks it for each configuration of a pair, in the process that a user started."""

        @staticmethod
        def verify_and_update_config(vllm_config: Any) -> None:
            check(vllm_config)

    known = ModelRegistry.get_supported_archs()
    for name, place in ((PAIR, "two_models:TwoModels"), (TWIN, "two_adapters:TwoAdapters")):
        if name not in known:
            ModelRegistry.register_model(name, f"springback.integrations.vllm.{place}")
        MODELS_CONFIG_MAP[name] = Checked


def check(vllm_config: Any) -> None:
    """Raise :class:`ValueError` for what a pair cannot do; also run the checks of its half."""
    twin = vllm_config.model_config.architecture == TWIN
    for given, allowed, do in _faults(vllm_config, twin):
        raise ValueError("springback: " + describe(given, allowed, do))
    _check_half(vllm_config)
    _complete_ends(vllm_config.model_config)


def _complete_ends(model: Any) -> None:
    """Have vLLM end answers at every token where springback does.

    vLLM asks its configuration for the generation config when it starts and takes end tokens from
    nowhere else, so the answer is put there: of this configuration alone, which may be pickled.
    """
    if model.skip_tokenizer_init:
        return
    tokenizer = load_tokenizer(Checkpoint(str(model.tokenizer), revision=model.tokenizer_revision))
    complete = generation_config(folder_of(model), tokenizer)
    if complete is not None:
        model.__dict__["try_get_generation_config"] = partial(
            _with_ends, model.try_get_generation_config(), complete["eos_token_id"]
        )


def _with_ends(generation: dict[str, Any], ends: list[int]) -> dict[str, Any]:
    return {**generation, "eos_token_id": ends}


def _faults(vllm_config: Any, twin: bool) -> list[tuple[str, str, str]]:
    model, parallel = vllm_config.model_config, vllm_config.parallel_config
    drafts, load = vllm_config.speculative_config, str(vllm_config.load_config.load_format)
    processors = [str(p) for p in model.logits_processors or ()]
    faults = []
    if drafts is not None and PROCESSOR in processors:
        given = "lambda by request together with speculation"
        faults.append((given, "one of them", f"leave {PROCESSOR} or the speculation out"))
    if drafts is not None and drafts.method != "ngram":
        given = f"speculation by {drafts.method}"
        faults.append((given, "ngram", "change the method, or leave speculation out"))
    if PROCESSOR in processors and (wrong := runners.fault(vllm_config)) is not None:
        faults.append(wrong)
    if parallel.pipeline_parallel_size > 1:
        given = f"pipeline parallelism over {parallel.pipeline_parallel_size}"
        faults.append((given, "tensor parallelism", "set it to 1"))
    if vllm_config.lora_config is not None:
        faults.append(("LoRA on a pair", "whole weights", "serve the adapter pair's own folder"))
    if load not in _LOADERS:
        faults.append((f"load format {load}", ", ".join(_LOADERS), "change --load-format"))
    if twin:
        write = "write whole weights: springback extrapolate --materialise"
        for name in ("tensor", "data"):
            if (size := getattr(parallel, f"{name}_parallel_size")) > 1:
                given = f"adapters on one base with {name} parallelism over {size}"
                faults.append((given, "1", write))
        if model.quantization is not None:
            given = f"adapters on one base with {model.quantization} quantization"
            faults.append((given, "none", write))
        if not model.enforce_eager:
            faults.append(("adapters on one base, compiled", "eager", "add --enforce-eager"))
    return faults


def _check_half(vllm_config: Any) -> None:
    """What vLLM checks for the class of one half, where it has such checks."""
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    for name in half_architectures(vllm_config.model_config):
        checks = MODELS_CONFIG_MAP.get(name)
        if checks is not None:
            checks.verify_and_update_config(vllm_config)
