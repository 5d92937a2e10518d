"""The plan of a boost whose model and data are at hand: ``springback boost --plan``."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from springback.core import Checkpoint
from springback.data import nll_withheld
from springback.jobs.boost.checks import check_settings, load_data
from springback.jobs.boost.plan import (
    BoostPlan,
    Load,
    Tokens,
    batch_of,
    disk_bytes,
    phases_of,
    seconds_of,
    stages,
)
from springback.jobs.boost.questions import question_format
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.speeds import known_speeds
from springback.models.encoding import encode_prompt, encode_rows
from springback.models.hub import base_of, local_folder
from springback.models.loading import Tokenizer, load_tokenizer, tokenizer_source
from springback.models.memory import Architecture, available_bytes, item_bytes, read_architecture
from springback.models.memory_parts import Parts, libraries, total
from springback.models.placement import dtype_name, placement
from springback.weights import is_adapter, tensor_names


def plan(settings: BoostSettings) -> BoostPlan:
    """What :func:`springback.jobs.boost.job.boost` would do; loads no weights, scores nothing.

    Reads the questions as the job does, with all that it refuses.
    """
    s = check_settings(settings)
    data = load_data(s)
    model = _Model.of(s)
    render, tokenizer = question_format(s).render, model.tokenizer(s)
    rows = [*render(data.validation).rows, *render(data.test).rows]
    prompts = [len(encode_prompt(tokenizer, row, s.system)) for row in rows]
    solved = [replace(row, response=row.response or row.answer or "") for row in rows]
    solutions = encode_rows(tokenizer, solved, s.max_tokens, s.system)
    answers = [s.max_new_tokens] * len(rows)
    if all(row.response for row in rows):
        answers = [min(len(r.ids) - r.start, s.max_new_tokens) for r in solutions]
    learned = render(data.train).rows if data.train else ()
    parts = {"validation": data.validation, "test": data.test}
    counts = {"validation": len(data.validation), "test": len(data.test), "train": len(learned)}
    load = Load(
        counts,
        Tokens.of(prompts),
        Tokens.of(answers),
        Tokens.of([len(r.ids) for r in solutions]),
        Tokens.of([len(r.ids) for r in encode_rows(tokenizer, learned, s.max_tokens, s.system)]),
        not all(nll_withheld(part, name, data.train) for name, part in parts.items()),
        max(len(r.ids) - r.start for r in solutions),
    )
    return model.plan(s, load)


def peak_parts(settings: BoostSettings) -> Parts:
    """What is in memory in the larger phase."""
    return max(plan(settings).phases.values(), key=total)


@dataclass(frozen=True)
class _Model:
    """The fine-tuned model, or the one to fine-tune: its folder, shape, and of adapters the number
    of weights of one, and its folder."""

    folder: Path
    shape: Architecture
    adapter: float = 0
    adapter_folder: Path | None = None

    @staticmethod
    def of(settings: BoostSettings) -> _Model:
        if not (settings.early and settings.ft):
            name = settings.model or ""
            folder = local_folder(name)
            return _Model(folder, read_architecture(folder, name))
        early, ft = local_folder(settings.early), local_folder(settings.ft)
        if not is_adapter(ft):
            return _Model(ft, read_architecture(ft, settings.ft))
        base = base_of([early, ft], settings.model)
        weights = sum(math.prod(shape) for shape, _ in tensor_names(ft).values())
        return _Model(base, read_architecture(base), weights, ft)

    def tokenizer(self, settings: BoostSettings) -> Tokenizer:
        here = Checkpoint(str(self.folder))
        if self.adapter_folder is not None:
            here = tokenizer_source(self.adapter_folder, here)
        return load_tokenizer(here, settings)

    @property
    def stored(self) -> str:
        """The dtype of most of its tensors."""
        dtypes = Counter(dtype for _, dtype in tensor_names(self.folder).values())
        return dtypes.most_common(1)[0][0]

    def plan(self, s: BoostSettings, load: Load) -> BoostPlan:
        how = placement(s)
        device = str(how.device)
        dtype = self.stored if how.dtype is None else dtype_name(how.dtype)
        speeds = known_speeds(s.precision, dtype)
        listed = tuple(stages(s, load))
        kind = f", adapters of {self.adapter / 1e6:.1f}M weights" if self.adapter else ""
        beside = (libraries(device),)
        return BoostPlan(
            f"{self.shape.name}: {self.shape.weights / 1e6:,.0f}M weights{kind}, in {dtype} on "
            f"{device}; questions of {load.prompt.most} tokens at the most, {batch_of(s)} at once",
            listed,
            tuple(seconds_of(stage, self.shape, speeds) for stage in listed),
            phases_of(s, self.shape, load, dtype, self.adapter, device == "cpu", beside),
            disk_bytes(s, self.shape, item_bytes(self.stored), self.adapter),
            speeds.source,
            available_bytes(device),
        )
