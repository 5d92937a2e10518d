"""How processes of accelerate's are started, as its config file says; light: no torch.

On CPUs (gloo) accelerate (1.15) starts one process for DDP whatever ``num_processes`` says, so
torch's own launcher starts them.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn


@dataclass(frozen=True)
class Launch:
    """``config``: accelerate's file.  ``processes``, ``cpu``, ``sharded`` (FSDP) and ``port``
    (None: any that is free): what it says.  ``checkpoint_activations``: train in less memory."""

    config: Path
    processes: int
    cpu: bool
    sharded: bool = False
    port: int | None = None
    checkpoint_activations: bool = False

    def command(self, folder: Path, name: str = "springback.training.distributed") -> list[str]:
        """What starts the module ``name`` in every process, which is given ``folder``."""
        module = ["-m", name, str(folder)]
        if self.cpu and not self.sharded:
            some = ["--standalone", "--nproc_per_node", str(self.processes)]
            return [sys.executable, "-m", "torch.distributed.run", *some, *module]
        launch = ["-m", "accelerate.commands.launch", "--config_file", str(self.config)]
        if self.port is None:  # accelerate's default is one port for all of a machine's trainings
            launch += ["--main_process_port", "0"]
        return [sys.executable, *launch, *module]

    def environment(self) -> dict[str, str]:
        """Of the processes: those on CPUs see no GPU."""
        return {**os.environ, **({"CUDA_VISIBLE_DEVICES": ""} if self.cpu else {})}


def end_process() -> NoReturn:
    """End a process whose work is done, at once.

    While Python takes itself down, a thread of torch's that is still there aborts the process now
    and then ("terminate called without an active exception", status -6), and the launcher takes
    all of its work for failed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
