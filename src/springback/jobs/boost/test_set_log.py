"""The log of opened test sets: a gain that was chosen on test is no gain.

An opening is the scoring of a test set with certain settings and weights.  It is written down
before the first question is answered, in the result folder's log and, so that another folder does
not hide it, in the user's own: ``$SPRINGBACK_STATE``, else ``$XDG_STATE_HOME/springback``, else
``~/.local/state/springback``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from springback.core import Slice, content_hash
from springback.data import content_key
from springback.errors import SpringbackError, StoreError
from springback.jobs.boost.checkpoints import Pair
from springback.jobs.boost.engine import TRANSFORMERS
from springback.jobs.boost.questions import question_format
from springback.jobs.boost.settings import BoostSettings
from springback.results.boost_schema import Opening
from springback.results.store import (
    Store,
    below,
    open_lock,
    read_json,
    require_file,
    require_named,
    write_json,
)
from springback.settings import names_changing

LOG_FILE = "test_openings.json"
#: Settings that choose no other way to answer: seeds repeat a study, the rest is bookkeeping.
_NO_CHOICE = names_changing(BoostSettings, "model", "seed", "measurement", "nothing")
#: How the weights came about; what they are is hashed itself.
_TRAINING = names_changing(BoostSettings, "training")


def state_folder() -> Path:
    """Where the user's own log lies."""
    if named := os.environ.get("SPRINGBACK_STATE"):
        return Path(named)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "springback"


def hash_of_test(test: Slice) -> str:
    """The hash of a test set: its questions and answers as a set, so that order does not count."""
    return content_hash(sorted({f"{content_key(r)}\n{r.answer}" for r in test.rows}))


def open_test(settings: BoostSettings, pair: Pair, test: Slice, store: Store) -> Opening:
    """Write the opening down; the same questions put to the same weights the same way are one.

    Raises as :func:`require_openable` does.  With ``reopen_test`` it is counted.
    """
    key, this = _opening(settings, pair, test)
    with _log_files(store, key) as files:
        known = _known(files, key)
        _refuse_other(settings, this, known, test)
        if this["id"] not in {o["id"] for o in known}:
            known.append(this)
        for file in files:
            _write(file, key, known)
    index = next(i for i, o in enumerate(known) if o["id"] == this["id"])
    reopened = any(o["settings"] != this["settings"] for o in known[:index])
    return Opening(key, len(known), index + 1, reopened)


def require_openable(settings: BoostSettings, pair: Pair, test: Slice, store: Store) -> None:
    """What :func:`open_test` would refuse after the search, before it; writes nothing.

    Raises :class:`SpringbackError` if the test set was opened with other settings before, unless
    ``reopen_test``.  Other weights under the same settings (another seed) are not refused, since
    they repeat a study and choose nothing; a given pair of checkpoints is a setting.
    """
    key, this = _opening(settings, pair, test)
    with _log_files(store, key) as files:
        _refuse_other(settings, this, _known(files, key), test)


def _opening(settings: BoostSettings, pair: Pair, test: Slice) -> tuple[str, dict[str, str]]:
    """The hash of the test set, and what is written down: settings, and with the weights an id."""
    key = hash_of_test(test)
    given = bool(settings.early and settings.ft)
    pair_hash = [pair.early.content_hash, pair.ft.content_hash]
    chosen = _chosen(settings)
    settings_hash = content_hash([chosen, pair_hash if given else None])
    asking = {name: value for name, value in chosen.items() if name not in _TRAINING}
    return key, {"settings": settings_hash, "id": content_hash([asking, pair_hash, key])[:20]}


def _known(files: list[Path], key: str) -> list[dict[str, str]]:
    """Openings of the set in all logs, each once."""
    known: list[dict[str, str]] = []
    for file in files:
        ids = {o["id"] for o in known}
        known += [o for o in _read(file, key) if o["id"] not in ids]
    return known


def _refuse_other(
    settings: BoostSettings, this: Mapping[str, str], known: list[dict[str, str]], test: Slice
) -> None:
    if settings.reopen_test or this["id"] in {o["id"] for o in known}:
        return
    if any(o["settings"] != this["settings"] for o in known):
        raise SpringbackError(
            f"the test set {test.name} ({len(test)} questions) was opened "
            f"{len(known)} time(s), with other settings; choosing by its result would make "
            "the proof worthless: keep a set that nobody has looked at, or go on with "
            "--reopen-test, which is counted and told"
        )


def _chosen(settings: BoostSettings) -> dict[str, Any]:
    """Settings that differ from their default: new ones do not make old openings others."""
    plain = vars(type(settings)())
    chosen = {
        name: value
        for name, value in vars(settings).items()
        if name not in _NO_CHOICE and value != plain[name]
    }
    if chosen.get("engine") == TRANSFORMERS:  # as before there was a choice
        del chosen["engine"]
    return {**chosen, **question_format(settings).key()}  # a function by what its file holds


@contextlib.contextmanager
def _log_files(store: Store, key: str) -> Iterator[list[Path]]:
    """The result folder's log and the user's, which is locked meanwhile.

    Where the user's cannot be written (a read-only home), the folder's alone.
    """
    require_named(state_folder())
    folder = below(state_folder(), "tests")
    log = store.root / LOG_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open_lock(folder / ".lock")
    except OSError:
        yield [log]
        return
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield [log, folder / f"{key}.json"]


def _read(file: Path, key: str) -> list[dict[str, str]]:
    require_file(file)
    if not file.exists():
        return []
    content: Mapping[str, Any] = read_json(file)
    try:
        return [{name: str(o[name]) for name in ("settings", "id")} for o in content.get(key, [])]
    except (TypeError, KeyError, AttributeError) as error:
        raise StoreError(
            f"{file} is not a record of openings; delete it, knowing that what it counted is lost"
        ) from error


def _write(file: Path, key: str, known: list[dict[str, str]]) -> None:
    content = read_json(file) if file.exists() else {}
    if content.get(key) != known:
        write_json(file, {**content, key: known})
