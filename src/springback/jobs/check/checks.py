"""What a check can refuse before torch is loaded."""

from __future__ import annotations

from pathlib import Path

from springback.data import require_source
from springback.errors import SpringbackError, describe
from springback.integrations.lm_eval_tasks import PREFIX, require_task
from springback.jobs.check.settings import CheckSettings
from springback.models.hub import nothing_at
from springback.models.names import require_compute, require_model
from springback.models.run_folder import checkpoints_of
from springback.results.places import require_apart

#: The settings that name what is read.
READ = ("base", "tuned", "run", "texts", "choices", "prompts", "harmful", "task")
_COUNTS = (
    "text_rows", "choice_rows", "task_rows", "prompt_rows", "text_characters", "answer_tokens",
    "sample_tokens", "task_tokens", "batch_size",
)  # fmt: skip
_CONTENT = ("texts", "choices", "tasks", "prompts", "harmful", "task")


def check_settings(settings: CheckSettings, out: str | Path) -> CheckSettings:
    """The settings; raises :class:`SpringbackError` for what cannot be checked, or not in ``out``.

    Nothing is loaded or fetched: of models and data only what is plainly wrong is seen here.
    """
    s = settings
    if not s.base:
        raise SpringbackError("check needs a base; write springback check BASE TUNED")
    if bool(s.tuned) == bool(s.run):
        given = "both TUNED and --run" if s.run else "neither TUNED nor --run"
        what = "springback check BASE TUNED, or springback check BASE --run DIR"
        raise SpringbackError(describe(given, "one of the two", f"write {what}"))
    for name in _COUNTS:
        if getattr(s, name) < 1:
            flag = f"--{name.replace('_', '-')}"
            raise SpringbackError(
                f"{flag} is {getattr(s, name)}; allowed: 1 or more; to leave a part out, name "
                "nothing for it (--choices '')"
            )
    if not any(getattr(s, name) for name in _CONTENT) and not s.weights:
        raise SpringbackError("nothing is left to check; name texts, choices, tasks or prompts")
    if twice := [n for n in _CONTENT[:-1] if len(set(getattr(s, n))) < len(getattr(s, n))]:
        raise SpringbackError(f"--{twice[0]} names one source twice; name each once")
    require_compute(s)
    if s.quantize:
        raise SpringbackError(
            describe(
                f"--quantize {s.quantize} in a check",
                "models in their own dtype, since what it asks is small beside 4 bit's rounding",
                "leave it out",
            )
        )
    for model in (s.base, s.tuned, *s.run):
        if model:
            _require_named(model)
    require_apart(out, s, READ)
    return s


def refuse(settings: CheckSettings, out: str | Path) -> None:
    """Raise :class:`SpringbackError` for all that is seen to be wrong without torch: as
    :func:`check_settings`, and models and data that are not there (hub ids are believed)."""
    s = check_settings(settings, out)
    tuned = checkpoints_of(s.run) if s.run else filter(None, (s.tuned,))
    for model in (s.base, *tuned):
        require_model(model, adapters=True)
    for source in (*s.texts, *s.choices, *s.prompts, *s.harmful, s.task):
        if source and not source.startswith(PREFIX):
            require_source(source)
    for name in s.tasks:
        require_task(f"{PREFIX}{name.removeprefix(PREFIX)}")


def _require_named(name: str) -> None:
    """Raise for what looks like a path of this machine and is no folder."""
    path = Path(name)
    looks = name.startswith((".", "/", "~")) or name.count("/") > 1 or path.is_file()
    if looks and not path.is_dir():
        raise SpringbackError(
            f"{nothing_at(name)}; allowed: a model folder, an adapter's folder, a hub id such as "
            "org/name, or a built-in name; check the path"
        )
