"""The process in vLLM's environment that decodes and scores for a boost.

    python -m springback.integrations.vllm.boost_worker

It is started by :class:`springback.integrations.vllm.client.Worker` and ends when its stdin does.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import IO, Any

from springback.integrations.vllm.client import PROTOCOL
from springback.integrations.vllm.folder import (
    ALPHA,
    AMATEUR_KEY,
    FOLDER_KEY,
    LAMBDA,
    PAIR,
    PROCESSOR,
    TWIN,
)

_EXTENSION = "springback.integrations.vllm.reload.BoostExtension"


class Engine:
    """One vLLM engine: a pair whose weights are set by :meth:`place`."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        """``tell`` is called with how many answers are finished."""
        self.tell = tell
        self.llm: Any = None
        self.asked = 0

    def open(
        self,
        model: str,
        adapters: Sequence[str],
        dtype: str,
        rows: int,
        alpha: float,
        **options: Any,
    ) -> None:
        """``model``: what is loaded first, ft or the base of ``adapters``, early and ft.

        ``rows``: requests decoded together.  ``options``: of vLLM's.
        """
        from vllm import LLM
        from vllm.platforms import current_platform

        pair = {FOLDER_KEY: adapters[-1], AMATEUR_KEY: adapters[0]} if adapters else {}
        overrides = {"architectures": [TWIN if adapters else PAIR], AMATEUR_KEY: model, **pair}
        self.llm = LLM(
            model=model,
            dtype=dtype,
            skip_tokenizer_init=True,
            load_format="safetensors",
            hf_overrides=overrides,
            logits_processors=[PROCESSOR],
            max_num_seqs=rows,
            max_model_len=-1,  # what the memory has room for
            worker_extension_cls=_EXTENSION,
            # A layer's packed weights would be constants of what is compiled for a CPU.
            enforce_eager=bool(adapters) or current_platform.is_cpu(),
            **options,
        )
        self.alpha: float | None = alpha
        self._strengths(0.0, alpha)
        self.contrasts = True

    def place(self, strong: dict[str, Any], weak: dict[str, Any] | None) -> None:
        """Set both models; what is cached of prefixes is forgotten."""
        self.llm.collective_rpc("springback_place", args=(strong, weak))
        self.contrasts = weak is not None
        self.forget()

    def forget(self) -> None:
        """Forget what is cached of prefixes: it is of the weights before."""
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("vLLM kept its cache of prefixes, which is of other weights")

    def decode(
        self,
        prompts: Sequence[Sequence[int]],
        lams: Sequence[float],
        alpha: float,
        max_new_tokens: int,
        stop_ids: Sequence[int],
    ) -> list[list[list[int]]]:
        """Greedy answers by lambda, without their end token; all of them are one batch."""
        from vllm import SamplingParams

        requests = []
        for prompt in prompts:  # a prompt's requests one after another: they share its cache
            for lam in lams:
                strengths = {LAMBDA: lam, ALPHA: alpha} if self.contrasts else None
                how = SamplingParams(
                    temperature=0.0,
                    max_tokens=max_new_tokens,
                    ignore_eos=True,
                    stop_token_ids=list(stop_ids),
                    detokenize=False,
                    extra_args=strengths,
                )
                requests.append((prompt, how))
        ends = set(stop_ids)
        answers = []
        for output in self._run(requests):
            tokens = list(output.outputs[0].token_ids)
            answers.append(tokens[:-1] if tokens and tokens[-1] in ends else tokens)
        return [answers[i :: len(lams)] for i in range(len(lams))]

    def score(self, texts: Sequence[tuple[Sequence[int], int]], lam: float) -> list[float]:
        """Negative log-likelihood, nats, of each text's tokens from its start on; unmasked."""
        from vllm import SamplingParams

        how = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        self._strengths(lam, None)
        try:
            outputs = self._run([(ids, how) for ids, _ in texts])
        finally:
            self._strengths(0.0, self.alpha)
        nats = []
        for (ids, start), output in zip(texts, outputs, strict=True):
            told = output.prompt_logprobs
            nats.append(-sum(told[i][ids[i]].logprob for i in range(start, len(ids))))
        return nats

    def _strengths(self, lam: float, alpha: float | None) -> None:
        self.llm.collective_rpc("springback_strengths", args=(lam, alpha))

    def _run(self, requests: Sequence[tuple[Sequence[int], Any]]) -> list[Any]:
        """Outputs of (token ids, how) in order."""
        from vllm.sampling_params import RequestOutputKind

        engine, outputs = self.llm.llm_engine, {}
        names = [f"{self.asked}-{i}" for i in range(len(requests))]
        self.asked += 1
        for name, (ids, how) in zip(names, requests, strict=True):
            how.output_kind = RequestOutputKind.FINAL_ONLY
            engine.add_request(name, {"prompt_token_ids": list(ids)}, how)
        while engine.has_unfinished_requests():
            finished = [output for output in engine.step() if output.finished]
            outputs.update({output.request_id: output for output in finished})
            if finished:
                self.tell(len(finished))
        return [outputs[name] for name in names]


def serve(asked: IO[str], answered: IO[str]) -> None:
    """Answer what is asked, line by line, until ``asked`` ends, which ends the process."""
    lines: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        for line in asked:
            lines.put(line)
        os._exit(0)  # also in the midst of work: nobody waits for it

    def tell(message: dict[str, Any]) -> None:
        answered.write(json.dumps(message) + "\n")
        answered.flush()

    threading.Thread(target=listen, daemon=True).start()
    engine = Engine(lambda finished: tell({"done": finished}))
    tell({"protocol": PROTOCOL})
    while True:
        given = json.loads(lines.get())
        try:
            answer = getattr(engine, given.pop("ask"))(**given)
        except Exception as error:  # told to who asked, whatever it is
            traceback.print_exc()
            lines_of_it = str(error).splitlines() or [""]
            tell({"error": f"failed with {type(error).__name__}: {lines_of_it[0][:400]}"})
        else:
            tell({"answer": answer})


def main() -> None:
    """Messages go to what stdout was; all else that is printed goes to stderr."""
    answered = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answered)


if __name__ == "__main__":
    main()
