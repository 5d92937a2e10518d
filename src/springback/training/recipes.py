"""What a recipe may hold.  Light: settings are checked by it before torch is loaded."""

from __future__ import annotations

import dataclasses
import math

from springback.core import ALGORITHMS, PRECISIONS, SCHEDULES, Recipe, algorithms_reading
from springback.errors import SpringbackError, describe

#: What bare texts answer where an algorithm needs a prompt.
NEUTRAL_PROMPT = "Review:"


def check_recipe(recipe: Recipe) -> None:
    """Raise unless every field has an allowed value and is one that the algorithm reads."""
    for value, allowed, flag in (
        (recipe.algorithm, (*ALGORITHMS,), "algorithm"),
        (recipe.schedule, SCHEDULES, "schedule"),
        (recipe.precision, PRECISIONS, "precision"),
    ):
        if value not in allowed:
            raise SpringbackError(
                describe(f"{flag} {value!r}", ", ".join(allowed), f"change the {flag}")
            )
    for field in dataclasses.fields(recipe):
        readers = algorithms_reading(field.name)
        unread = readers and recipe.algorithm not in readers
        if unread and getattr(recipe, field.name) != field.default:
            given = f"{field.name} {getattr(recipe, field.name)} with algorithm {recipe.algorithm}"
            raise SpringbackError(describe(given, f"with {', '.join(readers)}", "leave it out"))
    positive = ["learning_rate", "batch_size", "epochs", "max_tokens", "lora_alpha"]
    positive += ["desirable_weight", "undesirable_weight", "new_tokens", "temperature"]
    lowest = dict.fromkeys(positive, 0.0) | {"generations": 1.0}
    if recipe.lora_rank is not None:
        lowest["lora_rank"] = 0
    if ALGORITHMS[recipe.algorithm].preference and recipe.beta is not None:
        lowest["beta"] = 0
    for name, above in lowest.items():
        value = getattr(recipe, name)
        if not (math.isfinite(value) and value > above):
            raise SpringbackError(
                describe(f"{name} {value}", f"a number above {above:g}", f"change {name}")
            )
    if not 0 <= recipe.seed < 1 << 32:  # what NumPy's generator takes
        raise SpringbackError(describe(f"seed {recipe.seed}", "0 to 4294967295", "change the seed"))
    for name in ("gamma", "beta"):
        value = getattr(recipe, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise SpringbackError(describe(f"{name} {value}", "0 or more", f"change {name}"))
