"""The end of a command that ran a job: its report, the trackers, and where everything is."""

from __future__ import annotations

from typing import Any

from springback.cli.output import emit
from springback.cli.say import say


def finish(result: Any, targets: list[str] | None = None) -> None:
    """Build the report of ``result``, print verdict and paths, and log it to ``targets``.

    The first lines are what the page greets with: the sentence and its number.
    """
    from springback.report import build
    from springback.report.headline import headlines_of
    from springback.report.text import shares_of_time

    analysis = result.data["analysis"]
    for part in analysis.get("models") or analysis.get("studies") or []:
        if "folder" in part:
            build(result.folder / part["folder"])  # the page links to them
    page = build(result.folder)
    heads = headlines_of(result.data)
    for head in heads:
        say(head.sentence)
        if head.in_words:
            say(head.in_words)
    sentence = " ".join(head.sentence for head in heads)
    if result.verdict != sentence:
        say(result.verdict)
    say(f"results: {result.folder / 'result.json'}")
    say(f"report:  {page}")
    if spent := shares_of_time(result.data["provenance"].get("time")):
        say(f"time:    {spent}")
    file, time = result.folder / "result.json", result.data["provenance"].get("time")
    numbers = [head.in_words for head in heads if head.in_words]
    emit(kind=result.data["kind"], sentence=sentence, numbers=numbers)
    emit(verdict=result.verdict, result=file, report=page, time=time)
    if targets:
        from springback.integrations.trackers import track

        for line in track(result.folder, targets):
            say(line)
