"""Which way the weights move, and how far each group of tensors goes (paper B: ME, and beyond).

With checkpoints theta_1 … theta_n taken at steps t_1 < … < t_n (theta_n is theta_ft),

    direction = (t_n - t_{n-1}) * sum_i (t_i - mean t) theta_i / sum_i (t_i - mean t)^2

is the least-squares slope of the weights along the steps, times the last interval.  The factor
keeps mu comparable: mu = 1 goes one more interval, and for two checkpoints the direction is
exactly theta_ft - theta_early.  The result is theta_ft + mu * direction.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from springback.errors import ModelError, describe

#: One mu for all tensors, or one for each group (see :func:`group_of`).
Mu = float | Mapping[str, float]

OTHER = "other"
#: A tensor is in the first group whose pattern its name holds, whatever the case: norms first,
#: since ``self_attn.q_norm`` and ``post_attention_layernorm`` are norms.
GROUPS = {
    "norms": re.compile(r"norm|(^|\.)ln(_?\w+)?(\.|$)", re.IGNORECASE),
    "embeddings": re.compile(
        r"embed|(^|\.)(wte|wpe|lm_head|output_layer|shared)(\.|$)", re.IGNORECASE
    ),
    "attention": re.compile(
        r"attn|attention|(^|\.)(q|k|v|o|qkv|query|key|value)(_proj)?(\.|$)", re.IGNORECASE
    ),
    "mlp": re.compile(
        r"mlp|ffn|feed_?forward|expert|moe|densereludense"
        r"|(^|\.)(fc_?(\d|in|out)?|w\d|(gate|up|down|gate_up)_proj|intermediate)(\.|$)",
        re.IGNORECASE,
    ),
}

#: As a Trainer names its checkpoints, and ``KeepEarly`` the one that it keeps.
_TRAINER_FOLDER = re.compile(r"(?:checkpoint|early)-(\d+)$")


def group_of(name: str) -> str:
    """``norms``, ``embeddings``, ``attention``, ``mlp``, or ``other`` if no pattern fits."""
    for group, pattern in GROUPS.items():
        if pattern.search(name):
            return group
    return OTHER


def check_mu(mu: Mu) -> Mu:
    """``mu`` as floats.  Raises :class:`ModelError` for an unknown group or what is not finite."""
    values = dict(mu) if isinstance(mu, Mapping) else {"mu": mu}
    for group, value in values.items():
        if isinstance(mu, Mapping) and group not in (*GROUPS, OTHER):
            raise ModelError(
                describe(f"mu for {group!r}", f"{', '.join(GROUPS)}, {OTHER}", "name one of these")
            )
        if not math.isfinite(value):
            raise ModelError(describe(f"mu {value}", "a finite number", "try 0.1 to 1"))
    if not isinstance(mu, Mapping):
        return float(mu)
    if not values:
        raise ModelError(describe("no mu", "one number or GROUP=NUMBER", "try 0.1 to 1"))
    return {group: float(value) for group, value in sorted(values.items())}


def read_mu(text: str) -> Mu:
    """``0.2``, or ``attention=0.2,mlp=0.1`` as a mapping; raises :class:`ModelError`."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    values: dict[str, float] = {}
    for part in parts:
        group, equals, number = part.rpartition("=")
        if bool(equals) != ("=" in parts[0]) or (not equals and len(parts) > 1) or group in values:
            raise _unreadable_mu(text)
        try:
            values[group.strip()] = float(number)
        except ValueError as error:
            raise _unreadable_mu(text) from error
    if not values:
        raise _unreadable_mu(text)
    return check_mu(values[""] if list(values) == [""] else values)


def _unreadable_mu(text: str) -> ModelError:
    return ModelError(
        describe(f"mu {text!r}", "one number, or GROUP=NUMBER once a group", "try 0.2 or mlp=0.1")
    )


def mu_for(mu: Mu, name: str) -> float:
    """mu of one tensor.  With groups: its group's, else that of ``other``, else 0."""
    if not isinstance(mu, Mapping):
        return mu
    return mu.get(group_of(name), mu.get(OTHER, 0.0))


def mu_text(mu: Mu) -> str:
    """mu for reading: the number, or ``mlp 0.1, norms 0.2``."""
    if isinstance(mu, Mapping):
        return ", ".join(f"{group} {value!r}" for group, value in mu.items())
    return repr(mu)


def slope_weights(steps: Sequence[float]) -> tuple[float, ...]:
    """w_1 … w_{n-1} with direction = sum_i w_i (theta_n - theta_i); ``(1.0,)`` for two.

    The formula above, whose coefficients sum to zero, written in differences: equal weights then
    give a step of exactly zero.  Raises :class:`ModelError` unless there are two or more steps,
    finite and rising.
    """
    if len(steps) < 2 or not all(map(math.isfinite, steps)) or list(steps) != sorted({*steps}):
        raise ModelError(
            describe(
                f"steps {', '.join(f'{s:g}' for s in steps)}",
                "two or more, rising, one for each checkpoint",
                "name the checkpoints from the first to the last",
            )
        )
    exact = [Fraction(step) for step in steps]
    mean = sum(exact) / len(exact)
    spread = sum((t - mean) ** 2 for t in exact)
    last = exact[-1] - exact[-2]
    return tuple(float(last * (mean - t) / spread) for t in exact[:-1])


def share_weights(shares: Sequence[float], count: int) -> tuple[float, ...]:
    """w_1 … w_{n-1} with sum_i share_i theta_i / sum(shares) = theta_n + sum_i w_i (theta_n -
    theta_i): an average of the checkpoints, or any other point that they span.

    Raises :class:`ModelError` unless there is a finite share for each of ``count`` checkpoints and
    they do not sum to 0.
    """
    total = math.fsum(shares) if all(map(math.isfinite, shares)) else 0.0
    if len(shares) != count or total == 0.0:
        raise ModelError(
            describe(
                f"weights {', '.join(f'{s:g}' for s in shares)} for {count} checkpoints",
                "a finite number for each, not 0 together",
                "write 1,1,1 for the average of three",
            )
        )
    return tuple(-share / total for share in shares[:-1])


def steps_of(folders: Sequence[Path]) -> tuple[float, ...]:
    """Training steps from folders named ``checkpoint-<step>`` (a Trainer) or ``early-<step>``.

    If any is named otherwise: 0, 1, 2, …, as if they were equally far apart.
    """
    matches = [_TRAINER_FOLDER.match(folder.name) for folder in folders]
    if all(matches):
        return tuple(float(match[1]) for match in matches if match)
    return tuple(float(number) for number in range(len(folders)))


def checkpoint_steps(folders: Sequence[Path], given: tuple[float, ...] | None) -> tuple[float, ...]:
    """One step a folder: those given, else :func:`steps_of`; raises :class:`ModelError`."""
    if len(folders) < 2:
        raise ModelError(
            describe(f"{len(folders)} checkpoint", "two or more", "name the earlier ones first")
        )
    if given is None:
        # Two folders are taken in the order given, whatever their names: the direction is known.
        return (0.0, 1.0) if len(folders) == 2 else steps_of(folders)
    if len(given) != len(folders):
        raise ModelError(
            describe(f"{len(given)} steps", f"{len(folders)}, one a checkpoint", "name them all")
        )
    return tuple(float(step) for step in given)


def order_notes(folders: Sequence[Path]) -> tuple[str, ...]:
    """A warning where the names of two checkpoints say that the first is the later one."""
    matches = [_TRAINER_FOLDER.match(folder.name) for folder in folders]
    numbers = [int(match[1]) for match in matches if match]
    if len(folders) == 2 == len(numbers) and numbers[0] > numbers[1]:
        first, last = (folder.name for folder in folders)
        return (
            f"{first} is given as the earlier checkpoint and {last} as the later one, so mu above "
            "0 goes back along the run; swap them unless that is meant",
        )
    return ()


def checkpoint_labels(count: int) -> tuple[str, ...]:
    """What records call the checkpoints: early, checkpoint 2, …, ft."""
    return ("early", *(f"checkpoint {i}" for i in range(2, count)), "ft")
