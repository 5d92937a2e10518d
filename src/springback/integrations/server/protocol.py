"""What OpenAI's clients send, checked; what they get back."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from springback.core import Row, RowKind
from springback.data import framed
from springback.decoding import DecodeSettings
from springback.errors import SpringbackError
from springback.inference import Loaded
from springback.integrations.server.settings import ServeSettings
from springback.models.encoding import encode_prompt, stop_ids
from springback.models.templates import with_chat
from springback.settings import FILTERS, OFF, ChatSettings, Sampling, asks_for_nothing

#: Fields of the protocol that the decoder does not have, and the values that ask for nothing;
#: null does so everywhere.
_INERT: dict[str, tuple[Any, ...]] = {
    **{name: (value,) for name, value in OFF.items() if name not in FILTERS},
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("auto", "none"),  # of no tools
    "functions": ([],),
    "function_call": ("auto", "none"),
    "response_format": ({"type": "text"},),
    "echo": (False,),
    "suffix": ("",),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
}
#: Fields about the client, billing, speed, or calls of tools; they change no answer.
_IDLE = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prediction",
    "parallel_tool_calls",
    "priority",
    "request_id",
)
#: What a message may hold beside its text that would change an answer.  Its further fields are
#: metadata of the client's.
_OF_MESSAGES = ("tool_calls", "function_call", "audio", "refusal", "prefix", "partial")


#: Numbers of a request; pydantic would read true as 1.
_NUMBERS = (
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "n",
    "seed",
    "top_k",
    "min_p",
    "repetition_penalty",
)
#: Below this a temperature is 0: dividing by it may overflow, and no other token would be drawn.
_COLD = 1e-6


def _among(value: Any, allowed: tuple[Any, ...]) -> bool:
    """Whether a value is one of these; true is not 1 and false not 0, as in JSON."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed)


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's form."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": None, "code": self.code}}


class _Given(BaseModel):
    """Something of a request: null is as if left out."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if value is not None}


class StreamOptions(_Given):
    """What is streamed beside the text."""

    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False
    include_obfuscation: Literal[False] = False
    continuous_usage_stats: Literal[False] = False


class Request(_Given):
    """What both routes share.  ``temperature`` is 0 unless given: the strengths were chosen so.

    ``top_k``, ``min_p`` and ``repetition_penalty`` are no fields of OpenAI's (``extra_body``).
    """

    model_config = ConfigDict(extra="forbid")
    model: str | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1)
    n: int | None = Field(default=None, ge=1)
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    seed: int | None = None
    top_k: int = Field(default=Sampling.top_k, ge=0)
    min_p: float = Field(default=Sampling.min_p, ge=0, lt=1)
    repetition_penalty: float = Field(
        default=Sampling.repetition_penalty, gt=0, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_what_asks_for_nothing(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            raise ValueError("the body is not a JSON object")
        for name, allowed in _INERT.items():
            if given.get(name) is not None and not _among(given[name], allowed):
                raise ValueError(
                    f"{name} is not supported; allowed: {json.dumps(allowed[-1])}; leave it out"
                )
        for name in _NUMBERS:
            if isinstance(given.get(name), bool):
                shown = json.dumps(given[name])
                raise ValueError(f"{name} is {shown}; allowed: a number; change it or leave it out")
        dropped = (*_INERT, *_IDLE)
        return {k: v for k, v in given.items() if k not in dropped and not asks_for_nothing(k, v)}

    def prepared(self, loaded: Loaded) -> Loaded:
        """The model as this request asks for it; raises :class:`Refused`."""
        return loaded

    @property
    def stops(self) -> tuple[str, ...]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(given) > 4 or not all(given) or any(len(s) > 200 for s in given):
            raise Refused(400, "stop: allowed are up to 4 texts of 1 to 200 characters")
        return tuple(given)


class TextPart(_Given):
    """A part of a message; text is the only kind."""

    type: Literal["text"]
    text: str


class Message(_Given):
    """One turn of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_changes_answers(cls, given: Any) -> Any:
        if isinstance(given, dict):
            for name in _OF_MESSAGES:
                if given.get(name):
                    raise ValueError(f"{name} of a message is not supported; leave it out")
        return given

    def turn(self) -> tuple[str, str]:
        """Role and text; ``developer`` is what newer clients call the system."""
        text = self.content
        if not isinstance(text, str):
            text = "".join(part.text for part in text)
        return ("system" if self.role == "developer" else self.role), text


class ChatRequest(Request):
    """``POST /v1/chat/completions``."""

    messages: list[Message] = Field(min_length=1)
    chat_template_kwargs: dict[str, Any] | None = None

    def prepared(self, loaded: Loaded) -> Loaded:
        chat = ChatSettings(chat_template_args=self.chat_template_kwargs or {})
        try:
            return replace(loaded, tokenizer=with_chat(loaded.tokenizer, chat))
        except SpringbackError as error:
            raise Refused(400, str(error)) from error

    def prompts(self, loaded: Loaded) -> list[list[int]]:
        """The chat as token ids, as ``springback generate`` makes them of a prompt.

        A user's only message is put into the folder's frame of a question, if it has one.
        """
        *before, last = [message.turn() for message in self.messages]
        if last[0] != "user":
            raise Refused(400, f"the last message is the {last[0]}'s; allowed: the user's")
        alone = all(role == "system" for role, _ in before)
        text = framed(loaded.template, last[1]) if alone else last[1]
        kind: RowKind = "qa" if alone and loaded.asks else "chat"
        row = Row(kind, text, "", turns=tuple(before), place="the messages")
        try:
            return [encode_prompt(loaded.tokenizer, row, loaded.system)]
        except SpringbackError as error:
            raise Refused(400, str(error)) from error


class CompletionRequest(Request):
    """``POST /v1/completions``: bare text, no template."""

    prompt: str | list[str] | list[StrictInt] | list[list[StrictInt]]

    @field_validator("prompt", mode="wrap")
    @classmethod
    def _of_one_form(cls, given: Any, check: ValidatorFunctionWrapHandler) -> Any:
        try:
            return check(given)
        except ValidationError as error:  # whose lines name each form in turn
            raise ValueError(
                "allowed: a text, a list of texts, a list of token ids, or a list of such lists; "
                "send one of these"
            ) from error

    def prompts(self, loaded: Loaded) -> list[list[int]]:
        """One or several prompts as token ids."""
        given: Any = self.prompt
        if isinstance(given, str) or (given and isinstance(given[0], int)):
            given = [given]
        size = int(loaded.expert.config.get_text_config().vocab_size)
        prompts = []
        for one in given:
            ids = loaded.tokenizer(one)["input_ids"] if isinstance(one, str) else list(one)
            if not ids or any(not 0 <= i < size for i in ids):
                raise Refused(400, f"a prompt needs at least one token, each from 0 to {size - 1}")
            prompts.append(ids)
        if not prompts:
            raise Refused(400, "no prompt; give one")
        return prompts


def rows_of(
    request: Request, prompts: Sequence[list[int]], settings: ServeSettings
) -> list[list[int]]:
    """Every prompt ``n`` times; raises :class:`Refused` when that is more than a batch."""
    n = request.n or 1
    if n * len(prompts) > settings.batch:
        raise Refused(
            400,
            f"{n * len(prompts)} answers in one request; allowed: {settings.batch}; send several",
        )
    return [prompt for prompt in prompts for _ in range(n)]


def decode_settings(
    request: Request, rows: Sequence[list[int]], loaded: Loaded, settings: ServeSettings
) -> DecodeSettings:
    """How to decode ``rows``; raises :class:`Refused` where they do not fit."""
    longest = max(len(row) for row in rows)
    limit = getattr(loaded.expert.config.get_text_config(), "max_position_embeddings", None)
    room = settings.max_new_tokens if limit is None else limit - longest
    asked = request.max_completion_tokens or request.max_tokens
    if asked and asked > settings.max_new_tokens:
        raise Refused(
            400, f"{asked} new tokens asked for; allowed by the server: {settings.max_new_tokens}"
        )
    if room < (asked or 1):
        raise Refused(
            400,
            f"{longest} tokens of prompt and {asked or 1} new ones; the model takes {limit}",
            "context_length_exceeded",
        )
    temperature = request.temperature or 0.0
    temperature = 0.0 if temperature < _COLD else temperature
    seed = request.seed if request.seed is not None else secrets.randbits(31)
    tokenizer, kind = loaded.tokenizer, Row("chat", "", "")
    return DecodeSettings(
        max_new_tokens=asked or min(settings.max_new_tokens, room),
        lam=loaded.lam if loaded.amateur is not None else 0.0,
        alpha=loaded.alpha,
        temperature=temperature,
        seed=seed if temperature > 0 else 0,
        stop_ids=stop_ids(tokenizer, kind, loaded.expert),
        pad_id=tokenizer.pad_token_id,
        **{name: value for name in FILTERS if (value := getattr(request, name)) is not None},
        stop_strings=request.stops,
        keyed_noise=True,
    )


class Reply:
    """Builds what is sent back: whole, or chunk by chunk."""

    def __init__(self, chat: bool, model: str) -> None:
        self.chat, self.model = chat, model
        self.id = ("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12)
        self.created = int(time.time())

    def _head(self, chunk: bool) -> dict[str, Any]:
        kind = "chat.completion" if self.chat else "text_completion"
        return {
            "id": self.id,
            "object": kind + (".chunk" if chunk and self.chat else ""),
            "created": self.created,
            "model": self.model,
        }

    def whole(self, answers: Sequence[tuple[str, str]], usage: dict[str, int]) -> dict[str, Any]:
        """``answers``: text and reason of its end, by row."""
        choices = []
        for index, (text, reason) in enumerate(answers):
            content: dict[str, Any] = {"text": text}
            if self.chat:
                content = {"message": {"role": "assistant", "content": text}}
            choices.append({"index": index, **content, "finish_reason": reason, "logprobs": None})
        return {**self._head(False), "choices": choices, "usage": usage}

    def chunk(
        self, index: int, text: str, reason: str | None = None, first: bool = False
    ) -> dict[str, Any]:
        """A piece of one row's text."""
        content: dict[str, Any] = {"text": text}
        if self.chat:
            delta = {"role": "assistant"} if first else {}
            content = {"delta": {**delta, **({"content": text} if text or first else {})}}
        choice = {"index": index, **content, "finish_reason": reason, "logprobs": None}
        return {**self._head(True), "choices": [choice]}

    def usage(self, usage: dict[str, int]) -> dict[str, Any]:
        """The last chunk, where it was asked for."""
        return {**self._head(True), "choices": [], "usage": usage}


def usage_of(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> dict[str, int]:
    """Tokens in and out; a prompt asked for ``n`` answers counts once (``prompts`` has it once)."""
    taken, made = sum(map(len, prompts)), sum(map(len, answers))
    return {"prompt_tokens": taken, "completion_tokens": made, "total_tokens": taken + made}
