"""What vLLM's V2 runner asks a pair for: a state that knows who is in which row of a batch."""

from __future__ import annotations

import functools
from typing import Any

from springback.integrations.vllm.folder import PROCESSOR
from springback.integrations.vllm.request_lambda import table_of
from springback.integrations.vllm.runners import Sides, Strengths, asked_for, sides_of


@functools.cache
def pair_state() -> Any:
    """The V2 runner's state of a pair: it announces each batch to the table before logits are
    computed."""
    from vllm.v1.worker.gpu.model_states.default import DefaultModelState

    class PairState(DefaultModelState):  # type: ignore[misc]
        """Strengths of requests by their slot; of rows when a batch is made."""

        def __init__(self, vllm_config: Any, *more: Any, **named: Any) -> None:
            super().__init__(vllm_config, *more, **named)
            self.table = table_of(vllm_config)
            self.table.announced = True
            self.by_slot: dict[int, tuple[Strengths | None, Sides | None]] = {}
            self.takes = PROCESSOR in map(str, vllm_config.model_config.logits_processors or ())

        def add_request(self, req_index: int, new_req_data: Any) -> None:
            super().add_request(req_index, new_req_data)
            params = new_req_data.sampling_params
            # A slot may hold what an earlier request left.
            taken = (asked_for(params), sides_of(params)) if params and self.takes else (None, None)
            self.by_slot[req_index] = taken

        def preprocess_state(self, input_batch: Any, *more: Any, **named: Any) -> None:
            """Called for real batches alone, after their rows are laid out."""
            super().preprocess_state(input_batch, *more, **named)
            ends, count = input_batch.cu_num_logits_np, input_batch.num_reqs
            slots = input_batch.idx_mapping_np[:count].tolist()
            asked = [self.by_slot.get(slot, (None, None)) for slot in slots]
            self.table.strengths = {
                row: strengths
                for place, (strengths, _) in enumerate(asked)
                if strengths is not None
                for row in range(int(ends[place]), int(ends[place + 1]))
            }
            self.table.sides = {i: sides for i, (_, sides) in enumerate(asked) if sides is not None}
            starts = input_batch.query_start_loc_np[: count + 1]
            self.table.starts = lambda: starts
            self.table.rows, self.table.fresh = int(ends[count]), True

    return PairState
