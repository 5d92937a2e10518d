"""The process that compares expressions with the package math-verify.

Run as a file, so that nothing of springback is imported.  It reads JSON lines ``{"reference": ...,
"answer": ...}`` and writes one word a line: ``right``, ``wrong`` or ``unread``; without an answer
it says whether the reference can be read.  Only LaTeX is parsed, by a grammar: nothing is
evaluated as Python.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time

#: Bytes of address space, and seconds for one step of a comparison.
MEMORY, SECONDS = 1 << 31, 3


def main() -> None:
    """Answer until the input ends.  Whatever the packages print goes to standard error."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(os.dup(1), "w", encoding="ascii") as answers:
        os.dup2(2, 1)
        from math_verify import LatexExtractionConfig, parse, verify
        from math_verify.errors import TimeoutException

        reading = [LatexExtractionConfig()]

        def read(text: str) -> list[object]:
            parsed = parse(f"${text}$", extraction_config=reading, parsing_timeout=SECONDS)
            return list(parsed) if any(not isinstance(one, str) for one in parsed) else []

        def outcome(question: dict[str, str]) -> str:
            reference = read(question["reference"])
            answer = read(question["answer"]) if "answer" in question else reference
            if not reference or not answer:
                return "unread"
            if "answer" not in question:
                return "right"
            begin = time.monotonic()
            if verify(reference, answer, timeout_seconds=SECONDS):
                return "right"
            # verify also returns False after its own timeout.
            return "wrong" if time.monotonic() - begin < SECONDS else "unread"

        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            try:
                word = outcome(json.loads(line))
            except (Exception, TimeoutException):
                word = "unread"
            print(word, file=answers, flush=True)


if __name__ == "__main__":
    main()
