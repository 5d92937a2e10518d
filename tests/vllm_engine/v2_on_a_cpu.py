"""vLLM's V2 model runner without a GPU: its Triton kernels by Triton's own interpreter.

vLLM takes that runner where Triton has a backend for the device, of which there is none for CPUs
in this environment.  The interpreter needs none; so an entry that says "here" is all that is added,
and everything that runs is vLLM's and Triton's own code.
"""

from __future__ import annotations

import importlib
import os


class Driver:
    """Stands for a backend's driver."""

    @staticmethod
    def is_active() -> bool:
        return True


def prepare() -> None:
    """Call before vLLM or Triton is imported."""
    os.environ["TRITON_INTERPRET"] = "1"
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "1"
    backends = importlib.import_module("triton.backends")
    backends.backends["cpu"] = backends.Backend(compiler=None, driver=Driver)
