"""Fuzzers: damaged inputs through the code that the commands use (``make fuzz``).

``harness`` runs one case, ``campaign`` many of them in a process that may die; ``damage`` has the
mutations.  The other modules are the kinds: a new kind is one function with ``@kind``.  ``kills``
is ``make kills``.
"""

import os

# Read when libraries are imported, so set before any of them is: no network, one thread.
for _name, _value in (
    ("OMP_NUM_THREADS", "1"),
    ("HF_HUB_OFFLINE", "1"),
    ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
    ("MPLBACKEND", "Agg"),
    ("TOKENIZERS_PARALLELISM", "false"),
    ("TRANSFORMERS_VERBOSITY", "error"),
):
    os.environ.setdefault(_name, _value)
