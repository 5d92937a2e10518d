"""Importing this sets the surroundings and loads what every case needs, before a fork."""

from __future__ import annotations

import importlib
import os

for name, value in (
    ("OMP_NUM_THREADS", "1"),
    ("HF_HUB_OFFLINE", "1"),
    ("MPLBACKEND", "Agg"),
    ("TOKENIZERS_PARALLELISM", "false"),
    ("TRANSFORMERS_VERBOSITY", "error"),
    ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
):
    os.environ.setdefault(name, value)

for module in ("springback.cli.app", "transformers.trainer", "peft", "datasets"):
    importlib.import_module(module)
importlib.import_module("torch").set_num_threads(1)
