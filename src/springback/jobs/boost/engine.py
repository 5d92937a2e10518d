"""What decodes and scores a boost's arms: the seam, which engine it is, and what it cannot do.

Light: nothing here loads torch, since what an engine cannot do is refused before that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from springback.errors import SpringbackError, describe
from springback.integrations.vllm.environment import find_python, python_of_vllm
from springback.jobs.boost.settings import BoostSettings
from springback.results.store import Store, read_json
from springback.settings import engine_named

if TYPE_CHECKING:
    from springback.decoding import DecodeSettings
    from springback.models.encoding import Encoded
    from springback.probes import TextNLL
    from springback.progress import Progress

AUTO, TRANSFORMERS, VLLM = "auto", "transformers", "vllm"


class Engine(Protocol):
    """One engine decodes and scores all arms of a boost, in the search and on the test.

    Arms come as their keys (:meth:`springback.jobs.boost.arm.Arm.key`); several in one call have
    one mu and one weak model, and differ in lambda.  ``done`` is called with how many answers are
    finished since the last call.  ``kept``: the hash of the questions whose solutions the texts
    are, by which an engine may keep what it has read.

    ``mixes``: :meth:`decode_each` takes any arms together, and is quicker so.
    """

    mixes: bool

    def inputs(self) -> dict[str, Any]:
        """What the engine adds to the inputs of every run; nothing of Transformers."""

    def describe(self) -> dict[str, Any]:
        """What stands beside dtype and device in the result's provenance."""

    def close(self) -> None:
        """End what the engine has begun; it may be used again."""

    def decode(
        self,
        key: Mapping[str, Any],
        prompts: Sequence[Sequence[int]],
        how: DecodeSettings,
        done: Callable[[int], None],
    ) -> list[list[int]]:
        """Token ids of the answer to every prompt, without its end token."""

    def decode_each(
        self,
        keys: Sequence[Mapping[str, Any]],
        prompts: Sequence[Sequence[int]],
        how: DecodeSettings,
        known: list[list[int]] | None,
        done: Callable[[int], None],
        take: Callable[[int, list[list[int]]], None],
    ) -> None:
        """:meth:`decode` of each arm: ``take`` is called with its place among ``keys`` and its
        answers, as soon as they are there.

        ``known``: answers that are likely, which may save work.
        """

    def text_nll(
        self, keys: Sequence[Mapping[str, Any]], texts: Sequence[Encoded], kept: str | None = None
    ) -> list[list[TextNLL]]:
        """NLL of any texts by arm, of a pair without the plausibility mask."""

    def first_tokens(
        self,
        key: Mapping[str, Any],
        rows: Sequence[Encoded],
        tokens: Sequence[Sequence[int]],
        kept: str | None = None,
    ) -> list[list[float]]:
        """Log-probabilities, nats, that each row's counted part begins with each of its tokens."""

    def nll_along_mu(self, rows: Sequence[Encoded], progress: Progress) -> dict[float, list[float]]:
        """As :func:`springback.probes.along_mu.nll_along_mu` for the pair."""


def check_engine(settings: BoostSettings) -> BoostSettings:
    """The settings with the engine by its name of today.

    Raises :class:`SpringbackError` for one that is none, and for what vLLM is asked for and cannot
    do; ``auto`` is never vLLM then (:func:`chosen_engine`).
    """
    settings = replace(settings, engine=engine_named(settings.engine))
    if settings.engine == VLLM:
        for given, why in _not_in_vllm(settings):
            raise SpringbackError(
                describe(
                    f"{given} with --engine vllm{why}",
                    "this with --engine transformers",
                    "leave one of them out",
                )
            )
    elif settings.vllm_python and settings.engine == TRANSFORMERS:
        raise SpringbackError(
            describe(
                "--vllm-python with --engine transformers",
                "this with --engine vllm or auto",
                "leave one of them out",
            )
        )
    return settings


def require_engine(settings: BoostSettings) -> None:
    """Raise :class:`SpringbackError` where vLLM is asked for and not found."""
    if settings.engine == VLLM:
        find_python(settings.vllm_python)


def refuse_executor(settings: BoostSettings, spread: bool) -> None:
    """Raise :class:`SpringbackError` for vLLM together with an executor of other processes."""
    if spread and settings.engine == VLLM:
        raise SpringbackError(
            describe(
                "--executor ray with --engine vllm, which is one engine for the whole boost",
                "one of them",
                "leave one of them out",
            )
        )


def _not_in_vllm(s: BoostSettings) -> Iterator[tuple[str, str]]:
    """What the settings ask for that vLLM does not have here, and why."""
    noise = ", which cannot draw the same noise under every method"
    if s.samples > 1:
        yield f"--samples {s.samples}", noise
    if s.temperature:
        yield f"--temperature {s.temperature:g}", noise
    if s.gate:
        yield f"--gate {s.gate}", ", which contrasts at every token"
    if s.baselines:
        yield "--baselines", ", which neither votes nor averages"
    if s.reference:
        yield "--reference", ", which gives no logits of given texts"
    if s.device != "auto":
        yield f"--device {s.device}", ", which takes CUDA_VISIBLE_DEVICES"
    if s.device_map:
        yield f"--device-map {s.device_map}", ""
    if s.quantize:
        yield f"--quantize {s.quantize}", ", whose pair reads bases in 16 or 32 bit"


def chosen_engine(
    settings: BoostSettings, store: Store, cuda: bool, spread: bool = False
) -> BoostSettings:
    """The settings with ``transformers`` or ``vllm``, whatever ``auto`` is here.

    In a folder with scored runs ``auto`` is what made the last of them; else vLLM where there is
    CUDA, vLLM is found and can do all that is asked for, and Transformers otherwise.
    ``spread``: runs are made by an executor.
    """
    if settings.engine != AUTO:
        return settings
    engine = _engine_in(store)
    if engine is None:
        able = cuda and not spread and next(_not_in_vllm(settings), None) is None
        there = able and python_of_vllm(settings.vllm_python) is not None
        engine = VLLM if there else TRANSFORMERS
    named = check_engine(replace(settings, engine=engine, vllm_python=None))
    named = replace(named, vllm_python=settings.vllm_python)
    require_engine(named)
    refuse_executor(named, spread)
    return named


def _engine_in(store: Store) -> str | None:
    """The engine of the run in the folder that was scored last; None without one."""
    scored = list((store.root / "runs").glob("score-*/run.json"))
    if not scored:
        return None
    last = read_json(max(scored, key=lambda path: path.stat().st_mtime))
    return str(last.get("inputs", {}).get("engine", TRANSFORMERS))
