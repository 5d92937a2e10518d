"""Kinds: result files that are drawn and compared, folders and states that are gone on with."""

from __future__ import annotations

import contextlib
import copy
import functools
import html.parser
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import findings_fixture
import models_fixture
import report_fixture
from fuzz.damage import (
    UNREADABLE,
    damage_file,
    damage_in_kind,
    damage_json,
    damage_place,
    damage_value,
)
from fuzz.harness import Bench, Fault, Trial, command, kind
from fuzz.models import tiny
from fuzz.weights import MU, damage_safetensors
from springback.progress import Silent
from springback.report import render, render_card
from weights_files import pair

RESULTS: dict[str, Callable[[], dict[str, Any]]] = {
    "audit": report_fixture.audit_result,
    "audit of one seed": functools.partial(report_fixture.audit_result, 1),
    "full audit": findings_fixture.full_audit,
    "boost": report_fixture.boost_result,
    "demo": report_fixture.demo_result,
    "series": models_fixture.series_result,
    "reproduce": models_fixture.reproduce_result,
}
MARKUP = (
    "</script><img src=x onerror=alert(1)>",
    '"><script>alert(1)</script>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "{{7*7}}{% for x in ().__class__ %}",
    "]]><svg onload=alert(1)>",
    "&lt;script&gt;",
    "</style><script>x</script>",
    "</title><script>x</script>",
    "--><script>x</script>",
    "data:text/html,<script>1</script>",
    '\\"><svg/onload=1>',
    "$x^{2$",
    "//evil.example/x",
    "\x00\ud800\u202e\x1b[31m",
)
_RUNNING = {"script", "iframe", "object", "embed", "base", "form", "img", "foreignobject", "set"}
_LOCAL = ("#", "charts/", "data:,", "result.json", "report.html", "card.html")


class _Page(html.parser.HTMLParser):
    """Collects what could run, load or lead somewhere."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.bad: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _RUNNING:
            self.bad.append(tag)
        for name, value in attrs:
            text = (value or "").strip().lower()
            leads = name in ("href", "src", "xlink:href", "action", "formaction")
            foreign = ":" in text.split("/")[0] or text.startswith("//") or ".." in text
            if name.startswith("on") or (leads and foreign and not text.startswith(_LOCAL)):
                self.bad.append(f"{tag} {name}={text[:40]}")


def _require_harmless(page: str) -> None:
    parser = _Page()
    parser.feed(page)
    parser.close()
    if parser.bad:
        raise Fault(f"the page has {parser.bad[0]}")
    if "Content-Security-Policy" not in page:
        raise Fault("the page has no content security policy")
    page.encode()


@functools.cache
def _result(name: str) -> str:
    return json.dumps(RESULTS[name]())


def _with_markup(rng: random.Random, value: Any, text: str, share: float) -> Any:
    """Plain JSON, some of whose strings and keys hold ``text``."""
    inner = functools.partial(_with_markup, rng, text=text, share=share)
    if isinstance(value, dict):
        return {k + text if rng.random() < share / 20 else k: inner(v) for k, v in value.items()}
    if isinstance(value, list):
        return [inner(v) for v in value]
    if isinstance(value, str) and rng.random() < share:
        return rng.choice((text, value + text, text + value))
    return value


def _damaged_result(rng: random.Random, name: str) -> tuple[bytes, str]:
    raw = _result(name).encode()
    way = rng.randrange(12)
    if way < 3:
        text, before = rng.choice(MARKUP), json.loads(raw)
        result = _with_markup(rng, before, text, rng.choice((1.0, 0.3, 0.05)))
        result |= {key: before[key] for key in ("schema_version", "kind")}
        return json.dumps(result).encode(), f"{name}: {text[:30]!r} in names"
    if way < 10:  # values that a reader of types lets pass, mostly
        result, what = json.loads(raw), []
        how = damage_value if way == 9 else damage_in_kind
        for _ in range(rng.choice((1, 1, 2, 4, 12))):
            analysis, more, _ = how(rng, result.get("analysis"))
            result = {**result, "analysis": analysis}
            what.append(more)
        return json.dumps(result).encode(), f"{name}: {', '.join(what)}"
    new, more = damage_json(rng, raw)
    return new, f"{name}: {more}"


@kind("report", 300)
def report(rng: random.Random, bench: Bench, folder: Path) -> Trial:
    """A damaged or hostile result file: a page in which nothing runs, or a refusal."""
    raw, damage = _damaged_result(rng, rng.choice(list(RESULTS)))
    file = folder / "result.json"
    file.write_bytes(raw)
    if rng.random() < 0.15:
        if rng.random() < 0.3:
            damage += f", {damage_place(rng, folder)}"

        def written(printed: str) -> None:
            for page in folder.glob("*.html"):
                _require_harmless(page.read_text(encoding="utf-8"))

        pages = (folder / "report.html", folder / "card.html")
        return Trial(damage, lambda: command("report", folder), written, pages)

    def drawn() -> list[str]:
        from springback.results.store import read_json

        result = read_json(file)
        return [page for page in (render(result), render_card(result)) if page]

    def verify(pages: list[str]) -> None:
        for page in pages:
            _require_harmless(page)

    return Trial(damage, drawn, verify)


@kind("compare", 400)
def compare(rng: random.Random, bench: Bench, folder: Path) -> Trial:
    """Two audits' result files, one damaged, side by side."""
    raw = (_finished(bench, "audit") / "out/result.json").read_bytes()
    for name in ("a", "b"):
        (folder / name).mkdir()
    other = json.loads(raw)
    other["inputs"]["model"]["path"] = "another"
    (folder / "a/result.json").write_text(json.dumps(other))
    way = rng.randrange(10)
    if way < 7:  # what a card is made of
        result, how = json.loads(raw), rng.choice((damage_value, damage_in_kind))
        part = rng.choice(("measurements", "inputs", "analysis"))
        result[part], damage, _ = how(rng, result[part])
        damage = f"{part}: {damage}"
        raw = json.dumps(result).encode()
    elif way < 9:
        raw, damage = damage_json(rng, raw)
    else:
        raw, damage = _damaged_result(rng, "full audit")
    (folder / "b/result.json").write_bytes(raw)
    names = rng.sample(("a", "b"), 2)
    return Trial(damage, lambda: command("compare", *(folder / name for name in names)))


def audit_words(model: Path) -> list[object]:
    """A tiny audit, seconds long."""
    words: list[object] = ["audit", "--model", model, "--n-pos", "8", "--doses", "4"]
    words += ["--seeds", "0"]
    words += ["--batch-size", "4", "--max-tokens", "24", "--holdout", "4", "--prompts", "4"]
    words += ["--prompt-tokens", "6", "--sample-tokens", "6", "--resistance-rows", "4"]
    return [*words, "--probes", "margin,kl", "--learning-rate", "1e-3", "--save-every", "0"]


def boost_words(model: Path) -> list[object]:
    """A tiny boost, seconds long."""
    words: list[object] = ["boost", "--model", model, "--train", "problems", "--train-rows", "16"]
    words += ["--validation", "problems", "--validation-rows", "6", "--test", "problems"]
    words += ["--test-rows", "6", "--mu", "0.5", "--lambda", "1", "--cd-lambda", "0.5"]
    words += ["--max-new-tokens", "6", "--max-tokens", "320", "--batch-size", "4"]
    return [*words, "--learning-rate", "1e-3", "--train-batch-size", "4"]


JOBS = {"audit": audit_words, "boost": boost_words}


def _finished(bench: Bench, job: str) -> Path:
    """A folder with what a job wrote in ``out``, and the log of opened test sets in ``state``."""

    def make(place: Path) -> None:
        os.environ["SPRINGBACK_STATE"] = str(place / "state")
        command(*JOBS[job](bench.original("tiny", tiny)), "--out", place / "out")

    return bench.original(job, make)


def findings(folder: Path) -> Any:
    """What a job found, without the times and without where it was found."""
    return _without_places(json.loads((folder / "result.json").read_text(encoding="utf-8")))


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        inner = {k: v for k, v in value.items() if k not in ("provenance", "path")}
        return {k: _without_places(v) for k, v in inner.items()}
    return [_without_places(v) for v in value] if isinstance(value, list) else value


@kind("resume", 60)
def resume(rng: random.Random, bench: Bench, folder: Path) -> Trial:
    """A finished job's folder with one damaged file, and the same command again."""
    job = rng.choice(list(JOBS))
    model, original = bench.original("tiny", tiny), _finished(bench, job)
    state = bench.root / "state"
    out = folder / "out"
    shutil.copytree(original / "out", out)
    shutil.rmtree(state, ignore_errors=True)
    if rng.random() < 0.5 and (original / "state").exists():
        shutil.copytree(original / "state", state)
    places = [out, *([state] if state.exists() else [])]
    texts = sorted(p for place in places for p in place.rglob("*.json"))
    runs = [p for p in texts if p.name == "run.json"]
    openings = [p for p in texts if p.name == "test_openings.json" or "state" in p.parts]
    path = rng.choice(rng.choice([group for group in (runs, texts, openings) if group]))
    if rng.random() < 0.85:
        damage = f"{job}: {path.parent.name}/" + damage_file(rng, path, damage_json)
    else:
        damage = f"{job}: {damage_place(rng, path.parent, [path.name])}"

    def act() -> str:
        os.environ["SPRINGBACK_STATE"] = str(state)
        return command(*JOBS[job](model), "--out", out)

    def verify(printed: str) -> None:
        if _tampered(path, path_bytes):
            return  # a record that is whole, with other values: nobody can tell
        if findings(out) != findings(original / "out"):
            raise Fault("another result than without the damage")

    path_bytes = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
    return Trial(damage, act, verify)


def _tampered(path: Path, after: bytes) -> bool:
    """Whether a record is whole, and without what would tell that its values are others."""
    if path.name not in ("run.json", "test_openings.json") and "tests" not in path.parts:
        return False
    try:
        record = json.loads(after)
    except UNREADABLE:
        return False
    if path.name != "run.json":
        return isinstance(record, dict)
    return isinstance(record, dict) and "results_hash" not in record


class _Stop(BaseException):
    """Stands for the end of the process."""


class _StopAfter(Silent):
    def __init__(self, steps: int) -> None:
        self.left = steps

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.left -= 1
        if self.left <= 0:
            raise _Stop


@kind("partial", 500)
def partial(rng: random.Random, bench: Bench, folder: Path) -> Trial:
    """What a killed ``extrapolate`` left is damaged; the same command ends in the same bytes."""
    from springback.weights import extrapolate

    early, ft = pair(folder, (6, 5))
    out, left = folder / "out", folder / ".out.partial"
    extrapolate(early, ft, MU, folder / "whole")
    with contextlib.suppress(_Stop):
        extrapolate(early, ft, MU, out, progress=_StopAfter(rng.choice((3, 4))))
    files = sorted(p for p in left.rglob("*") if p.is_file() and p.stat().st_size)
    path = rng.choice(files)
    if rng.random() < 0.2:
        damage = damage_place(rng, left)
    elif path.suffix == ".safetensors":
        damage = damage_file(rng, path, damage_safetensors)
    else:
        damage = damage_file(rng, path, damage_json)

    def verify(printed: str) -> None:
        folders = (folder / "whole", out)
        whole, made = ({p.name: p.read_bytes() for p in f.iterdir()} for f in folders)
        if whole.keys() != made.keys():
            raise Fault(f"files {sorted(whole.keys() ^ made.keys())}")
        for name in whole:
            if whole[name] != made[name] and name.endswith(".safetensors"):
                raise Fault(f"{name} has other bytes than without the damage")

    words = ("extrapolate", early, ft, "--mu", MU, "--out", out)
    return Trial(damage, lambda: command(*words), verify, (out,))


@kind("state", 180)
def state(rng: random.Random, bench: Bench, folder: Path) -> Trial:
    """A damaged state of a killed training: passed over, said, and the training is the same."""
    import torch
    from safetensors.torch import load_file
    from transformers import GPT2Config, GPT2LMHeadModel

    from finetune_runs import recipe
    from springback.core import Checkpoint
    from springback.models.encoding import Encoded
    from springback.models.loading import load_tokenizer
    from springback.training import Resume, finetune

    torch.manual_seed(0)
    shape = GPT2Config(vocab_size=300, n_positions=64, n_embd=8, n_layer=1, n_head=2)
    start = GPT2LMHeadModel(shape)
    tokenizer = load_tokenizer(Checkpoint(str(bench.original("tiny", tiny))))
    rows = [Encoded(tuple(range(10 + n, 16 + n)), 2, 4) for n in range(12)]

    def run(resume: Resume, progress: Silent | None = None) -> tuple[Any, dict[str, Any]]:
        model = copy.deepcopy(start)
        done = finetune(
            model, tokenizer, rows, recipe("sft"), resume=resume, progress=progress or Silent()
        )
        return done, {n: p.detach().clone() for n, p in model.named_parameters()}

    def kill(place: Path) -> None:
        with contextlib.suppress(_Stop):
            run(Resume(place / "state", save_every=0.0), _StopAfter(3))

    original = bench.original("state", kill)
    expected = run(Resume())
    shutil.copytree(original / "state", folder / "state")
    (step,) = (folder / "state").glob("step-*")
    path = rng.choice(sorted(step.iterdir()))
    if rng.random() < 0.15:
        damage = damage_place(rng, step)
    else:
        how = damage_json if path.suffix == ".json" else damage_safetensors
        damage = damage_file(rng, path, how)
    untold = path.exists() and _may_differ(path, load_file)

    def verify(got: tuple[Any, dict[str, Any]]) -> None:
        weights = all(torch.equal(weight, got[1][n]) for n, weight in expected[1].items())
        same = got[0] == expected[0] and weights
        if not same and not untold:
            raise Fault("another training than without the damage")

    return Trial(damage, lambda: run(Resume(folder / "state", save_every=0.0)), verify)


def _may_differ(path: Path, load_file: Callable[[Path], Any]) -> bool:
    """Whether a state file is whole after its damage, with other values: nobody can tell."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        if path.suffix == ".json":
            return isinstance(json.loads(path.read_bytes()), dict)
        return bool(load_file(path))
    except Exception:
        return False
