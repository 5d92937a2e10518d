"""Functions of the user's own, and the judge that is one."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from springback.errors import SpringbackError
from springback.models.quiet import one_line
from springback.probes.judges.scorer import Scorer, refuse_spec
from springback.results.judge_info import FORMS

USER_FUNCTION_FORMS = "python:FILE.py:FUNCTION or module.path:FUNCTION"
_MODULE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")


@dataclass(frozen=True)
class UserFunction:
    """A function of the user's, called through :meth:`call` so that its errors end in one line.

    ``takes`` names its arguments for the message; ``digest`` is the hash of its file.
    """

    what: str
    name: str
    digest: str
    function: Callable[..., Any]

    @property
    def identity(self) -> str:
        """The function in the inputs of a run."""
        return f"own {self.digest} {self.name}"

    def call(self, takes: str, *arguments: Sequence[Any]) -> Any:
        """What it returns for lists of ``arguments``."""
        return self._caught(takes, "number a text", lambda: self.function(*map(list, arguments)))

    def call_each(self, takes: str, *arguments: Sequence[Any]) -> list[Any]:
        """What it returns for each first, second and so on of ``arguments``."""

        def every() -> list[Any]:
            return [self.function(*one) for one in zip(*arguments, strict=True)]

        returned: list[Any] = self._caught(takes, "number", every)
        return returned

    def _caught(self, takes: str, what: str, function: Callable[[], Any]) -> Any:
        try:
            returned = function()
            if isinstance(returned, Iterator):  # a generator: run it where its errors are caught
                returned = list(returned)
        except Exception as error:
            raise SpringbackError(
                f"the {self.what} {self.name} failed with {type(error).__name__}: "
                f"{one_line(error)}; allowed: {self.name}({takes}), which returns one {what}; "
                "mend it"
            ) from error
        return returned


def is_user_function(spec: str) -> bool:
    """Whether ``spec`` has one of the forms that :func:`load_user_function` takes."""
    return spec.startswith("python:") or _MODULE.fullmatch(spec) is not None


def load_user_function(spec: str, what: str, allowed: str = USER_FUNCTION_FORMS) -> UserFunction:
    """The user's function that ``python:FILE.py:FUNCTION`` or ``module.path:FUNCTION`` names.

    The file is run, since the user named it.  ``what`` it is for, and the forms ``allowed``, are
    named in errors.  Raises :class:`SpringbackError`.
    """
    if spec.startswith("python:"):
        return _from_file(spec, what, allowed)
    match = _MODULE.fullmatch(spec)
    if match is None:
        raise refuse_spec(spec, "choose one of these forms", what, allowed)
    return _from_module(spec, match[1], match[2], what, allowed)


def _from_file(spec: str, what: str, allowed: str) -> UserFunction:
    file, mark, name = spec.removeprefix("python:").rpartition(":")
    path = Path(file)
    if not mark or not name.isidentifier() or path.suffix != ".py":
        do = "name a file ending in .py and, behind a colon, a function in it"
        raise refuse_spec(spec, do, what, allowed)
    try:
        source = path.expanduser().read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        raise SpringbackError(
            f"{what} {spec!r}: cannot read {path} ({getattr(error, 'strerror', error)}); "
            "allowed: a Python file; check the path"
        ) from error
    digest = hashlib.sha256(source).hexdigest()
    module = types.ModuleType(f"springback_{what}_{digest[:12]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickling look a class's module up
    try:
        # Not through an import: that would leave compiled files beside the user's.
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise SpringbackError(
            f"{what} {spec!r}: running {path} failed with {type(error).__name__}: "
            f"{one_line(error)}; mend the file"
        ) from error
    return _function(spec, module, name, digest, what)


def _from_module(spec: str, module_name: str, name: str, what: str, allowed: str) -> UserFunction:
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        do = (
            f"importing {module_name} failed with {type(error).__name__}: {one_line(error)}; "
            "check the name and Python's path"
        )
        raise refuse_spec(spec, do, what, allowed) from error
    file = getattr(module, "__file__", None)
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else module_name
    return _function(spec, module, name, digest, what)


def _function(
    spec: str, module: types.ModuleType, name: str, digest: str, what: str
) -> UserFunction:
    function = getattr(module, name, None)
    if not callable(function):
        have = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise SpringbackError(
            f"{what} {spec!r}: there is no function {name!r}; allowed: "
            f"{', '.join(have[:12]) or 'none, the file defines no function'}; name one"
        )
    return UserFunction(what, name, digest, function)


def user_scorer(spec: str) -> Scorer:
    """The user's function as a judge; its parameters say what it is given.

    ``(prompt, answer)``, so named: the question as it stands in the data and the answer, for each
    text; one parameter: the list of texts; else the lists of prompts and texts.
    """
    user = load_user_function(spec, "scorer", FORMS)
    each, one = _parameters(user.function)

    def numbers(prompts: list[str], texts: list[str]) -> Any:
        if each:
            return user.call_each("prompt, answer", prompts, texts)
        if one:
            return user.call("texts", texts)
        return user.call("prompts, texts", prompts, texts)

    direction = f"higher = more of what {user.name} counts"
    return Scorer(user.name, "score", direction, user.identity, numbers, asked=each)


def _parameters(function: Callable[..., Any]) -> tuple[bool, bool]:
    """Whether a function takes one prompt and one answer, and whether it takes texts alone."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of a builtin
        return False, False
    needed = [p.name for p in parameters if p.default is p.empty and p.kind in _GIVEN]
    alone = len(parameters) == 1 and len(needed) == 1
    return needed == ["prompt", "answer"], alone


_GIVEN = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
