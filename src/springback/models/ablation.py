"""A direction of the residual stream taken out of a model's weights: refusal ablation.

Arditi et al. (arXiv 2406.11717): refusal is mediated by one direction, the difference of mean
hidden states between two sets of prompts.  What no weight writes along it, no layer reads.  Nothing
is trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from springback.errors import ModelError
from springback.models.loading import Model
from springback.models.placement import running_device, wide_device
from springback.models.writers import WRITERS, elsewhere

#: Share of the layers that a direction may come from, from the first on, as the paper has it.
DEEPEST = 0.8
#: A hidden state may keep this share of its length along the direction: what rounding leaves.
LEFT = 1e-3
#: Rows turned into float64 at a time.
BLOCK = 1 << 12


def candidate_layers(model: Model) -> range:
    """The layers behind which a direction is looked for, counted from 1.

    Raises :class:`ModelError` for a model of a single layer.
    """
    layers = int(model.config.get_text_config().num_hidden_layers)
    if layers < 2:
        raise ModelError("a model of one layer has no direction between layers; take another")
    return range(1, int(DEEPEST * layers) + 1)


@torch.inference_mode()
def mean_states(model: Model, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Mean hidden state of the prompts' last tokens, (layers + 1, width) in float64.

    Row 0 is the embeddings', row i what stands behind layer i.  One forward pass over each prompt.
    """
    total: Tensor | None = None
    for ids in prompts:
        last = torch.stack([state[0, -1] for state in _states(model, ids)]).cpu().double()
        total = last if total is None else total + last
    if total is None:
        raise ModelError("no prompts to take a mean of; give at least one")
    return total / len(prompts)


def _states(model: Model, ids: Sequence[int]) -> tuple[Tensor, ...]:
    """Hidden states of one text, (1, tokens, width) each: embeddings, then behind every layer."""
    out = model(
        input_ids=torch.tensor([list(ids)], device=running_device(model)),
        output_hidden_states=True,
        use_cache=False,
        logits_to_keep=1,
    )
    states: tuple[Tensor, ...] = out.hidden_states
    return states


def unit(difference: Tensor) -> Tensor:
    """The difference at length 1; raises :class:`ModelError` where it has none."""
    length = difference.norm()
    if not bool(torch.isfinite(length)) or float(length) == 0:
        raise ModelError(
            "the two sets of prompts have the same mean hidden state, so there is no direction; "
            "give prompts of two kinds"
        )
    direction: Tensor = difference / length
    return direction


@contextmanager
def without(model: Model, direction: Tensor) -> Iterator[None]:
    """Within, what is written to the residual stream has no part along ``direction`` (width,).

    The weights stay; this is what :func:`remove_direction` does to them, but for a head that shares
    the embedding's weights.
    """

    def remove(module: Any, args: Any, out: Tensor) -> Tensor:
        along = direction.to(out.device, out.dtype)
        rest: Tensor = out - (out @ along)[..., None] * along
        return rest

    with ExitStack() as stack:
        for module in _writers(model):
            stack.callback(module.register_forward_hook(remove).remove)
        yield


@torch.no_grad()
def remove_direction(model: Model, direction: Tensor, prompt: Sequence[int]) -> None:
    """Project ``direction`` (width,), of length 1, out of all weights that write to the stream.

    In place: W becomes (I - r r^T) W, biases and embeddings likewise; taken in float64 and rounded
    once.  A head that shares the embedding's weights loses it too.  Raises :class:`ModelError`
    where hidden states of ``prompt`` then still have a part along it, as in models that normalise
    what a block writes: the model is then not to be used.
    """
    for module in _writers(model):
        # Rows are what is written: a linear layer has them as columns, the others as rows.
        weight = module.weight.T if isinstance(module, nn.Linear) else module.weight
        _project_rows(weight, direction)
        if getattr(module, "bias", None) is not None:
            _project_rows(module.bias[None], direction)
    for state in _states(model, prompt)[:-1]:  # the last one is normalised
        rows = state[0].double().cpu()
        if bool(((rows @ direction.cpu()).abs() > LEFT * rows.norm(dim=1)).any()):
            raise elsewhere(type(model).__name__)


def _project_rows(matrix: Tensor, direction: Tensor) -> None:
    """Every row of ``matrix`` (n, width) without its part along ``direction``, in place."""
    where = wide_device(matrix.device)
    along = direction.to(where)
    for first in range(0, len(matrix), BLOCK):
        rows = matrix[first : first + BLOCK].to(where).double()
        matrix[first : first + BLOCK] = rows - torch.outer(rows @ along, along)


def _writers(model: Model) -> list[Any]:
    """Embeddings, and the linear layers that write to the residual stream."""
    width = int(model.config.get_text_config().hidden_size)
    found: list[Any] = []
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None or weight.ndim != 2:
            continue
        if isinstance(module, nn.Embedding):
            written = weight.shape[1]
        elif name.rpartition(".")[2] in WRITERS:
            # Transformers' Conv1D (GPT-2) has its outputs as columns.
            written = weight.shape[0 if isinstance(module, nn.Linear) else 1]
        else:
            continue
        if written == width:
            found.append(module)
    return found
