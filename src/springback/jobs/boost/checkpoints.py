"""The checkpoints of a boost: two models or two adapters as given, or trained here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from springback.core import Checkpoint, Run, Slice
from springback.decoding.adapter_pair import require_shared_base
from springback.errors import ModelError, SpringbackError
from springback.jobs.boost.epochs import on_base, train_epochs
from springback.jobs.boost.settings import BoostSettings
from springback.models.hub import base_of, local_folder, looks_like_hub_id
from springback.models.loading import resolve
from springback.models.names import require_adapters_above
from springback.models.placement import dtype_name, placement
from springback.progress import Progress
from springback.results.store import Store, require_space
from springback.weights import Extrapolation, hash_weights, is_adapter, materialise_adapters
from springback.weights.adapters.reading import (
    check_bases,
    open_adapter,
    require_different_adapters,
)
from springback.weights.direction import order_notes
from springback.weights.extrapolation import open_checkpoints
from springback.weights.io.aligning import require_different
from springback.weights.io.folder import freed_record, weight_files
from springback.weights.io.freed import free_weights


@dataclass(frozen=True)
class Pair:
    """``line``: all checkpoints of the run in order, the last two of which are early and ft.

    ``weak``: further weak models by name, ``init`` and ``other``.
    """

    line: tuple[Checkpoint, ...]
    weak: dict[str, Checkpoint] = field(default_factory=dict)

    @property
    def early(self) -> Checkpoint:
        return self.line[-2]

    @property
    def ft(self) -> Checkpoint:
        return self.line[-1]


def make_pair(
    settings: BoostSettings, train: Slice | None, store: Store, progress: Progress
) -> Pair:
    """The pair, trained if need be, and the weak models asked for.

    Raises :class:`SpringbackError` for two checkpoints with the same weights, or with tensors of
    other names, shapes or dtypes.
    """
    line: tuple[Checkpoint, ...]
    if settings.early and settings.ft:
        line = _given(settings, store, progress)
        if line[-2].content_hash == line[-1].content_hash:
            raise SpringbackError(
                f"--early {settings.early} and --ft {settings.ft} hold the same weights; "
                "give an earlier checkpoint of the run, such as the one after the first epoch"
            )
    else:
        assert train is not None  # check_settings: either a pair or something to train on
        start = resolve(settings.model or "")
        done = train_epochs(
            start,
            train,
            settings.recipe(),
            store,
            progress,
            settings.system,
            settings,
            settings.checkpoint_activations,
        )
        line = tuple(point.checkpoint for point in done.points)
    weak = {}
    if "init" in settings.ablate_weak:
        weak["init"] = resolve(settings.model or "")
    if "other" in settings.ablate_weak:
        weak["other"] = resolve(settings.weak or "")
    return Pair(line, weak)


def _given(settings: BoostSettings, store: Store, progress: Progress) -> tuple[Checkpoint, ...]:
    names = settings.run or (settings.early or "", settings.ft or "")
    folders = [folder_of(name) for name in names]
    for warning in order_notes([Path(name) for name in names]):
        progress.note(f"warning: {warning}")
    adapters = [folder is not None and is_adapter(folder) for folder in folders]
    if not any(adapters):
        require_adapters_above(settings, *names)
        line = tuple(resolve(name) for name in names)
        # What extrapolate would refuse at the end is refused before anything is decoded.
        require_different(open_checkpoints([Path(c.path) for c in line[-2:]]))
        return line
    if not all(adapters):
        if len(names) > 2:
            raise SpringbackError(
                f"--run has adapters and full models ({', '.join(names)}); give one kind of one run"
            )
        raise SpringbackError(
            f"one of --early {names[0]} and --ft {names[1]} is a LoRA adapter and the other is "
            "not; give two adapters or two full models of one run"
        )
    return _adapters([f for f in folders if f is not None], settings, store, progress)


def folder_of(name: str) -> Path | None:
    """The local folder, fetched if ``name`` is a hub id; None for what :func:`resolve` knows."""
    return local_folder(name) if Path(name).is_dir() or looks_like_hub_id(name) else None


def _adapters(
    adapters: Sequence[Path], settings: BoostSettings, store: Store, progress: Progress
) -> tuple[Checkpoint, ...]:
    """Adapters on the base that they share; written into copies of it where that cannot be."""
    base = resolve(base_of(adapters, settings.model))
    opened = [open_adapter(folder, dora=True) for folder in adapters]
    check_bases(opened)
    require_different_adapters(opened)
    try:
        require_shared_base([str(folder) for folder in adapters], base.path)
    except ModelError as error:
        if settings.quantize:
            raise
        count = "two" if len(adapters) == 2 else len(adapters)
        why = (
            f"the adapters are merged into {count} copies of {base.path}, since they cannot share "
            f"it in memory: {error}"
        )
        return _merged(adapters, base, settings, store, progress, why)
    return tuple(on_base(base, str(folder), hash_weights(folder)) for folder in adapters)


def _merged(
    adapters: Sequence[Path],
    base: Checkpoint,
    settings: BoostSettings,
    store: Store,
    progress: Progress,
    why: str,
) -> tuple[Checkpoint, ...]:
    """Adapters written into copies of their base, in the dtype that is computed in.

    Noted with ``why``, unless the copies were made and freed before.
    """
    place = placement(settings).of_files(base.path)
    assert place.dtype is not None
    dtype = dtype_name(place.dtype)
    run = Run.of(
        "merge",
        base=base.content_hash,
        adapters=[hash_weights(folder) for folder in adapters],
        **place.inputs(),
    )
    count = len(adapters)
    labels = [*(f"before-{i}" for i in range(count - 2)), "early", "ft"]
    folders = [store.checkpoint(run, label) for label in labels]
    if not all(map(_freed, folders)):
        progress.note(why)
        size = sum(f.stat().st_size for f in weight_files(base.path))
        require_space(store.root, 2 * count * size, "merging adapters into copies of their base")
    done = []
    for number, folder in enumerate(folders):
        if _freed(folder):  # finished runs need what it was, not the weights
            done.append(Checkpoint(str(folder), content_hash=hash_weights(folder)))
            continue
        folder.parent.mkdir(parents=True, exist_ok=True)
        alone = tuple(float(i == number) for i in range(count))
        how = Extrapolation(1.0, dtype=dtype, shares=alone)  # type: ignore[arg-type]
        materialise_adapters(adapters, base.path, how, folder, progress)
        done.append(Checkpoint(str(folder), content_hash=hash_weights(folder)))
    return tuple(done)


def _freed(folder: Path) -> bool:
    return freed_record(folder) is not None


def free_merged(pair: Pair, store: Store) -> None:
    """Free the copies that adapters were merged into: what is written of them is written."""
    for checkpoint in pair.line:
        folder = Path(checkpoint.path)
        if folder.parent.parent == store.checkpoints and folder.parent.name.startswith("merge-"):
            free_weights(folder)
