"""Fuzzers: damaged inputs through the code that the commands use (``make fuzz``).

``harness`` runs one case, ``campaign`` many of them in a process that may die; ``damage`` has the
mutations.  The other modules are the kinds: a new kind is one function with ``@kind``.
"""
