"""The judge behind an OpenAI-compatible address, on this machine or elsewhere.

Prompts and sampled texts are sent to the address that the user named, and to no other: redirects
are refused, and a loopback address is reached past any proxy.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import math
import os
import re
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from springback.errors import SpringbackError, describe
from springback.probes.judges.rubrics import split_rubric
from springback.probes.judges.scorer import Scorer, refuse_spec

#: The environment variable with the address's key; it is sent there and kept nowhere.
KEY = "SPRINGBACK_JUDGE_KEY"
#: Seconds that an answer may take, and seconds before each further try.
TIMEOUT = 120.0
WAITS = (1.0, 4.0, 16.0)
LONGEST_WAIT = 60.0
#: Questions asked at a time, and the longest reply in tokens.
AT_A_TIME = 8
REPLY_TOKENS = 64
_BUSY = {408, 425, 429, 500, 502, 503, 504, 529}
_LARGEST_REPLY = 1_000_000
_VERDICT = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


def address(spec: str) -> Scorer:
    """The scorer of ``openai:URL#MODEL[=RUBRIC]``: 1 for yes, 0 for no, NaN for neither."""
    url, _, given = spec.removeprefix("openai:").partition("#")
    url = _checked(url, spec)
    model, rubric = split_rubric(given, spec)
    client = Client(url, model)

    def numbers(prompts: list[str], texts: list[str]) -> list[float]:
        return client.verdicts([rubric.about(*pair) for pair in zip(prompts, texts, strict=True)])

    return Scorer(
        f"{model}={rubric.name}",
        "share yes",
        f"higher = more often yes ({rubric.name})",
        f"openai {client.url} {model} {rubric.hash}",
        numbers,
        cut=0.5,
        asked=True,
        gaps=True,
        sends_to=client.url,
    )


def _checked(url: str, spec: str) -> str:
    """``url`` without a slash at its end; it stands in results, so it may hold no secret."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise refuse_spec(spec, "give the address that /chat/completions is behind, with http(s)")
    if "@" in parts.netloc or parts.query:
        raise SpringbackError(
            f"the address of a judge at {parts.hostname} has a user, a password or a question mark "
            f"in it, which results would hold; allowed: an address alone; put the key into {KEY}"
        )
    return url.rstrip("/")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Texts and key go to the address that was named."""


class Client:
    """Questions to one model behind one address, with tries and time limits."""

    def __init__(self, url: str, model: str) -> None:
        self.url, self.model = url, model
        proxies = [urllib.request.ProxyHandler({})] if _is_loopback(url) else []
        self._opener = urllib.request.build_opener(_NoRedirect, *proxies)

    def verdicts(self, questions: list[str]) -> list[float]:
        """1 for yes, 0 for no and NaN for another reply to each question, in order."""
        pool, stop = ThreadPoolExecutor(AT_A_TIME), threading.Event()
        try:
            futures = [pool.submit(self._verdict, question, stop) for question in questions]
            return [future.result() for future in futures]
        finally:  # after one that failed, or Ctrl-C, the others are not tried again
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _verdict(self, question: str, stop: threading.Event) -> float:
        said = _VERDICT.match(self.reply(question, stop))
        return math.nan if said is None else float(said[1].lower() == "yes")

    def reply(self, question: str, stop: threading.Event) -> str:
        """The text that comes back, after further tries where the server is busy, until ``stop``.

        Raises :class:`SpringbackError` where none comes.
        """
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": REPLY_TOKENS,
        }
        data = json.dumps(body).encode()
        for wait in (*WAITS, None):
            problem, after = "", None
            try:
                with self._opener.open(self._request(data), timeout=TIMEOUT) as response:
                    return _content(response.read(_LARGEST_REPLY))
            except urllib.error.HTTPError as error:
                # Its text is not shown: servers repeat what they were sent.
                problem, after = f"status {error.code}", error.headers.get("Retry-After")
                error.close()
                if error.code not in _BUSY:
                    raise self._failed(problem, _MEND.get(error.code, "")) from None
            except (OSError, http.client.HTTPException) as error:
                cause = error.reason if isinstance(error, urllib.error.URLError) else error
                problem = f"{type(cause).__name__}"
            except (ValueError, LookupError, TypeError, RecursionError):
                raise self._failed("a reply that is no chat completion", "") from None
            if wait is not None and stop.wait(_seconds(after, wait)):
                break
        raise self._failed(f"{problem}, {len(WAITS) + 1} times", "")

    def _request(self, data: bytes) -> urllib.request.Request:
        headers = {"Content-Type": "application/json", "User-Agent": "springback"}
        if key := os.environ.get(KEY, "").strip():
            if not key.isascii() or not key.isprintable():
                raise SpringbackError(f"{KEY} holds signs that no key has; set it again")
            headers["Authorization"] = f"Bearer {key}"
        return urllib.request.Request(f"{self.url}/chat/completions", data, headers)

    def _failed(self, given: str, do: str) -> SpringbackError:
        do = do or "look after the server and run the same command again; what is judged stays"
        given = f"{given} from the judge at {self.url}"
        return SpringbackError(describe(given, "a server with /chat/completions", do))


_MEND = {
    400: "check the model's name, and that it takes temperature 0 and max_tokens",
    401: f"put its key into the environment variable {KEY}",
    403: f"put its key into the environment variable {KEY}",
    404: "check the address, which often ends in /v1, and the model's name",
    **dict.fromkeys((301, 302, 303, 307, 308), "it leads elsewhere: name that address itself"),
}


def _content(data: bytes) -> str:
    """The text of a chat completion; a reply that was all thought has none."""
    text = json.loads(data)["choices"][0]["message"]["content"]
    if text is not None and not isinstance(text, str):
        raise TypeError("content is no text")
    return text or ""


def _seconds(after: str | None, wait: float) -> float:
    """How long to wait: what the server says, but not for ever."""
    try:
        return min(max(wait, float(after or "")), LONGEST_WAIT)  # NaN is no more than wait
    except ValueError:
        return wait


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
