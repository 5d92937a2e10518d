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
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from springback.integrations.vllm.client import DONE, PART, PROTOCOL
from springback.integrations.vllm.folder import (
    ALPHA,
    AMATEUR_KEY,
    FOLDER_KEY,
    LAMBDA,
    LINE_KEY,
    PAIR,
    PROCESSOR,
    SIDES,
    TWIN,
)

#: Tokens of a block of the cache on a CPU, of which whole ones are shared.
BLOCK = 32
_EXTENSION = "springback.integrations.vllm.reload.BoostExtension"


class Engine:
    """One vLLM engine: a pair whose weights are set by :meth:`place`, or a line of adapters, of
    which every request says how they are weighed."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        """``tell`` is called with messages: how many answers are finished, and those of an arm."""
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
        """``model``: what is loaded first, ft or the base of ``adapters``, those of the line.

        ``rows``: requests decoded together.  ``options``: of vLLM's.
        """
        from vllm import LLM
        from vllm.platforms import current_platform

        line = {FOLDER_KEY: adapters[-1], LINE_KEY: list(adapters)} if adapters else {}
        if current_platform.is_cpu():  # vLLM's 128 tokens are more than many a prompt to share
            options = {"block_size": BLOCK, **options}
        overrides = {"architectures": [TWIN if adapters else PAIR], AMATEUR_KEY: model, **line}
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
        self.weighed = bool(adapters)
        if self.weighed:
            self.llm.collective_rpc("springback_weigh")

    def place(self, strong: Any, weak: Any | None) -> None:
        """Set both models, where what is cached of prefixes is forgotten; of a line, what requests
        ask for that name nothing else."""
        self.placed = {"strong": strong, "weak": weak}
        if not self.weighed:
            self.llm.collective_rpc("springback_place", args=(strong, weak))
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
        places: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        """Tell the greedy answers of each arm, without their end token, once all of them are there.

        An arm is a lambda, and of a line its place, as :meth:`place` takes it.  Arms that contrast
        are a batch after the others: beside one that does every request runs its weak model.
        """
        places = places or [self.placed] * len(lams)
        by_place: dict[str, list[int]] = {}
        for arm, place in enumerate(places):
            by_place.setdefault(json.dumps(place), []).append(arm)
        for contrasts in (False, True):
            # A prompt's requests of a place one after another: they share its cache.
            owners = [
                (arm, question)
                for arms in by_place.values()
                if (places[arms[0]]["weak"] is not None) == contrasts
                for question in range(len(prompts))
                for arm in arms
            ]
            how = {"max_tokens": max_new_tokens, "stop_token_ids": list(stop_ids)}
            strengths = [{LAMBDA: lam, ALPHA: alpha} if contrasts else {} for lam in lams]
            requests = [
                (prompts[question], self._greedy(strengths[arm], **how), places[arm])
                for arm, question in owners
            ]
            answers = [dict[int, list[int]]() for _ in lams]
            for index, output in self._run(requests):
                arm, question = owners[index]
                tokens = list(output.outputs[0].token_ids)
                ended = bool(tokens) and tokens[-1] in stop_ids
                answers[arm][question] = tokens[:-1] if ended else tokens
                if len(answers[arm]) == len(prompts):
                    self.tell({PART: [arm, [answers[arm][i] for i in range(len(prompts))]]})

    @staticmethod
    def _greedy(strengths: dict[str, float], **how: Any) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=0.0, ignore_eos=True, detokenize=False, extra_args=strengths, **how
        )

    def score(self, texts: Sequence[tuple[Sequence[int], int]], lam: float) -> list[float]:
        """Negative log-likelihood, nats, of each text's tokens from its start on; unmasked."""
        from vllm import SamplingParams

        how = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        self._strengths(lam, None)
        try:
            outputs = dict(self._run([(ids, how, self.placed) for ids, _ in texts]))
        finally:
            self._strengths(0.0, self.alpha)
        nats = []
        for i, (ids, start) in enumerate(texts):
            told = outputs[i].prompt_logprobs
            nats.append(-sum(told[k][ids[k]].logprob for k in range(start, len(ids))))
        return nats

    def _strengths(self, lam: float, alpha: float | None) -> None:
        self.llm.collective_rpc("springback_strengths", args=(lam, alpha))

    def _run(
        self, requests: Sequence[tuple[Sequence[int], Any, dict[str, Any]]]
    ) -> Iterator[tuple[int, Any]]:
        """Outputs of (token ids, how, place) by their index, as they are finished.

        Of a line the place goes with the request, and names what is cached of its prompt: that is
        of both models, so requests share it where both are the same.
        """
        from vllm.sampling_params import RequestOutputKind

        engine = self.llm.llm_engine
        names = {f"{self.asked}-{i}": i for i in range(len(requests))}
        self.asked += 1
        for name, (ids, how, place) in zip(names, requests, strict=True):
            how.output_kind = RequestOutputKind.FINAL_ONLY
            prompt: dict[str, Any] = {"prompt_token_ids": list(ids)}
            if self.weighed:
                sides = place["strong"], place["weak"]
                how.extra_args = {**(how.extra_args or {}), SIDES: sides}
                prompt |= self.shared_with(place)
            engine.add_request(name, prompt, how)
        while engine.has_unfinished_requests():
            finished = [output for output in engine.step() if output.finished]
            yield from ((names[output.request_id], output) for output in finished)
            if finished:
                self.tell({DONE: len(finished)})

    def shared_with(self, place: dict[str, Any]) -> dict[str, str]:
        """What makes vLLM share a prompt's cache among requests of one place alone."""
        return {"cache_salt": json.dumps(place)}


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
    engine = Engine(tell)
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
