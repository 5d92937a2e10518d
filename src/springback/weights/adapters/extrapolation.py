"""LoRA exactly: theta_ep = base + (1 + mu) dW_ft - mu dW_early as one adapter.

The sum of adapter_sum.py is an adapter of rank r_1 + r_2.  Ranks are padded with zeros to one rank
for all modules, and alpha = r makes the scaling 1, since some engines ignore rank patterns.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from springback.core import byte_size
from springback.errors import ModelError, describe
from springback.progress import Progress, Silent
from springback.results.store import real_out, require_space, whole_folder, write_json
from springback.weights.adapters.combining import AdapterSum
from springback.weights.adapters.reading import (
    check_bases,
    open_adapter,
    require_different_adapters,
)
from springback.weights.adapters.writing import config, entries, widths, write_tensors
from springback.weights.direction import (
    Mu,
    check_mu,
    checkpoint_labels,
    checkpoint_steps,
    mu_text,
)
from springback.weights.extrapolation import direction_weights, line_notes, shares_text
from springback.weights.io.folder import ADAPTER, ADAPTER_CONFIG, hash_weights
from springback.weights.io.job import CODES, check_settings, coarse_warnings, recognise
from springback.weights.io.report import (
    About,
    OutputDtype,
    Source,
    copy_side_files,
    write_record,
)

KIND = "extrapolated adapter"
Engine = Literal["peft", "vllm"]
ENGINES: tuple[str, ...] = get_args(Engine)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class AdapterExtrapolation:
    """How to extrapolate adapters: everything but the folders.

    ``mu``, ``steps`` and ``shares`` as in :class:`springback.weights.Extrapolation`.  ``dtype``: of
    all that is written; ``auto`` writes the LoRA factors in float32 and others as ft has them.
    ``svd_rank``: cut each module to this rank, which is no longer exact.  ``engine``: ``vllm``
    refuses what vLLM does not load (biases and modules_to_save).  ``base``: folder of the base
    model, needed where one adapter holds a bias or a saved module and another does not.
    """

    mu: Mu
    dtype: OutputDtype = "auto"
    steps: tuple[float, ...] | None = None
    svd_rank: int | None = None
    engine: Engine = "peft"
    base: str | Path | None = None
    shares: tuple[float, ...] | None = None


@dataclass(frozen=True)
class AdapterReport:
    """What :func:`extrapolate_adapters` wrote.

    ``rank``: of every module.  ``rounding_error``: ||written - exact|| / ||mu * direction|| over
    all products B A and saved tensors, before any cut of rank.  ``svd_error``: what the cut costs,
    ||cut - whole|| / ||whole|| over all modules; ``svd_worst`` the module with the largest share;
    both None without a cut.
    """

    modules: int
    rank: int
    parameters: int
    rounding_error: float
    bytes_written: int
    early_hash: str
    ft_hash: str
    out_hash: str
    warnings: tuple[str, ...] = ()
    other_hashes: Mapping[str, str] = field(default_factory=dict)
    svd_error: float | None = None
    svd_worst: tuple[str, float] | None = None

    @property
    def hashes(self) -> dict[str, str]:
        """Content hash of everything that went in, by its label."""
        return {"early": self.early_hash, **self.other_hashes, "ft": self.ft_hash}


def extrapolate_adapters(
    adapters: Sequence[str | Path],
    how: AdapterExtrapolation,
    out: str | Path,
    progress: Progress | None = None,
) -> AdapterReport:
    """Write the extrapolated adapter as the folder ``out``, the last of ``adapters`` being ft.

    An ordinary PEFT adapter: ``adapter_model.safetensors``, ``adapter_config.json``, ft's
    tokenizer files, ``springback.json`` and a model card.  Ranks, alphas, rsLoRA, patterns and
    target modules may differ; a module that only one adapter has contributes only its part.
    Biases and modules_to_save are extrapolated like full weights.  Holds one module at a time.

    Raises :class:`ModelError` for adapters of different bases, for what has no exact sum (with
    the reason), and as ``engine`` asks; :class:`StoreError` if ``out`` holds something else.
    """
    check_settings(how.dtype, None)
    mu = check_mu(how.mu)
    if how.engine not in ENGINES:
        raise ModelError(describe(f"engine {how.engine!r}", ", ".join(ENGINES), "choose one"))
    if how.svd_rank is not None and how.svd_rank < 1:
        raise ModelError(describe(f"svd rank {how.svd_rank}", "1 or more", "leave it out"))
    folders = [Path(folder) for folder in adapters]
    steps = checkpoint_steps(folders, how.steps)
    opened = [open_adapter(folder) for folder in folders]
    speaker = progress or Silent()
    order = line_notes(folders, steps, how.shares, speaker)
    notes = (*order, *check_bases(opened, how.base))
    direction = direction_weights(steps, how.shares)
    total = AdapterSum(opened, mu, direction, Path(how.base) if how.base else None)
    if not total.modules:
        raise ModelError(f"mu {how.mu} leaves no LoRA at all; that is the base model; take it")
    if how.engine == "vllm":
        _refuse_for_vllm(total)
    settings = {
        "kind": KIND,
        "mu": mu,
        "dtype": how.dtype,
        "direction": _direction(how, steps),
        "svd_rank": how.svd_rank,
        "base_hash": hash_weights(how.base) if how.base and total.base else None,
    }
    target = real_out(out)
    labels = checkpoint_labels(len(opened))
    sources = {label: Source(a.root) for label, a in zip(labels, opened, strict=True)}
    about = About(settings, sources, _card_text(total, mu, how))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        roots = {label: source.root for label, source in sources.items()}
        return recognise(AdapterReport, target, settings, roots, speaker)
    require_different_adapters(opened)
    try:
        return _write(total, how, about, target, speaker, notes)
    finally:
        speaker.close()


def _direction(how: AdapterExtrapolation, steps: Sequence[float]) -> dict[str, Any] | None:
    """What the record says of the direction; None for the line of two adapters."""
    if how.shares is not None:
        return {"shares": list(how.shares)}
    return None if len(steps) == 2 else {"steps": list(steps)}


def _refuse_for_vllm(total: AdapterSum) -> None:
    saved = [n for n in total.full if not total.is_copy(n)]
    if saved or total.has_bias():
        what = saved[0] if saved else "lora_bias"
        raise ModelError(
            f"vLLM loads no biases and no modules_to_save in an adapter, and these hold {what}; "
            "allowed: LoRA matrices; --materialise with --base writes a full model instead"
        )


def _write(
    total: AdapterSum,
    how: AdapterExtrapolation,
    about: About,
    out: Path,
    speaker: Progress,
    notes: tuple[str, ...],
) -> AdapterReport:
    """Write the folder, whole or not at all."""
    rank = max(total.ranks[name] for name in total.modules)
    rank = min(rank, how.svd_rank) if how.svd_rank else rank
    listed = entries(total, rank, CODES[how.dtype])
    size = sum(entry[3] for entry in listed)
    held = 8 * 6 * max(sum(widths(total, name)) * total.ranks[name] for name in total.modules)
    if how.engine == "vllm":
        speaker.note(f"vLLM needs --enable-lora --max-lora-rank {rank} or more for this adapter")
    speaker.note(
        f"extrapolating needs {byte_size(size)} of disk in {out.parent} "
        f"and under {byte_size(2e8 + held)} of memory"
    )
    require_space(out.parent, size + (1 << 20), f"the extrapolated adapter {out.name}")
    speaker.stage("extrapolating", len(total.modules) + len(total.full))
    with whole_folder(out) as folder:
        warnings = list(copy_side_files(total.ft.root, folder, "auto"))
        sums = write_tensors(total, how.svd_rank, rank, listed, folder / ADAPTER, speaker)
        write_json(folder / ADAPTER_CONFIG, config(total, rank))
        hashes = {label: hash_weights(source.root) for label, source in about.sources.items()}
        early, ft = hashes.pop("early"), hashes.pop("ft")
        error = math.sqrt(sums.error / sums.step) if sums.step else 0.0
        codes = {entry[1]: 1 for entry in listed}
        report = AdapterReport(
            modules=len(total.modules),
            rank=rank,
            parameters=sum(math.prod(entry[2]) for entry in listed),
            rounding_error=error,
            bytes_written=(folder / ADAPTER).stat().st_size,
            early_hash=early,
            ft_hash=ft,
            out_hash=hash_weights(folder),
            warnings=(*notes, *coarse_warnings(error, codes, early == ft), *warnings),
            other_hashes=hashes,
            svd_error=math.sqrt(sums.cut / sums.whole) if how.svd_rank and sums.whole else None,
            svd_worst=sums.worst,
        )
        _write_record(folder, report, about, total)
    return report


def _write_record(folder: Path, report: AdapterReport, about: About, total: AdapterSum) -> None:
    base, meta = total.ft.base, ["library_name: peft"]
    findings = [
        f"{report.modules} modules of rank {report.rank}, {report.parameters:,} parameters",
        f"Rounding error, as a share of the step: {report.rounding_error:.3g}",
    ]
    if report.svd_error is not None:
        findings.append(f"Cut by SVD; relative error of the update: {report.svd_error:.3g}")
    if is_hub_id := bool(_HUB_ID.fullmatch(base)) and not Path(base).exists():
        meta.append(f"base_model: {json.dumps(base)}")
    settings = {"base": base if is_hub_id else Path(base).name or None}
    write_record(folder, report, about, meta, findings, settings)


def _card_text(total: AdapterSum, mu: Mu, how: AdapterExtrapolation) -> tuple[str, ...]:
    rank = how.svd_rank
    made = f"cut to rank {rank} by SVD" if rank else "exact, as one adapter of both ranks"
    if how.shares is not None:
        return (*shares_text(how.shares), f"LoRA; {made.replace('both', 'all')}.")
    return (
        f"`theta_ep = base + (1 + mu) dW_ft - mu dW_early` with mu = {mu_text(mu)}: LoRA moved on",
        "along the line from an early checkpoint to the fine-tuned one, without training (EpiCoDe,",
        f"Tao et al., arXiv 2506.03489); {made}. {len(total.adapters)} adapters went in.",
    )
