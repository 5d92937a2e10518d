"""Importing this loads what every case needs, before a fork."""

from __future__ import annotations

import importlib

for module in ("springback.cli.app", "transformers.trainer", "peft", "datasets"):
    importlib.import_module(module)
importlib.import_module("torch").set_num_threads(1)
