"""Model folders that are wrong in every way we know: one line, exit code 2, nothing written."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boosted_fixture import boosted, checkpoints
from springback.cli.app import main
from weights_adapters import save_adapter
from weights_files import read_model, write_model

Spoil = Callable[[Path], object]
DOWN = "model.layers.0.mlp.down_proj.weight"
UP = "model.layers.0.mlp.up_proj.weight"


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Write the weights of ``folder`` again, edited: name to (dtype code, array)."""
    tensors = dict(read_model(folder))
    edit(tensors)
    write_model(folder, tensors)


def put(name: str, value: float) -> Spoil:
    def edit(tensors: dict[str, Any]) -> None:
        code, array = tensors[name]
        array = array.copy()
        array.flat[5] = value
        tensors[name] = code, array

    return lambda folder: change(folder, edit)


def swap(tensors: dict[str, Any]) -> None:
    tensors[DOWN], tensors[UP] = tensors[UP], tensors[DOWN]


def to_float16(tensors: dict[str, Any]) -> None:
    for name, (_, array) in tensors.items():
        tensors[name] = "F16", array.astype(np.float16)


def overwrite(name: str, content: bytes) -> Spoil:
    return lambda folder: (folder / name).write_bytes(content)


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def sharded(folder: Path) -> None:
    tensors = read_model(folder)
    half = len(tensors) // 2
    items = list(tensors.items())
    (folder / "model.safetensors").unlink()
    write_model(folder, dict(items[:half]), dict(items[half:]))
    (folder / "model-00002-of-00002.safetensors").unlink()


def gpt2(folder: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    (folder / "model.safetensors").unlink()
    config = GPT2Config(vocab_size=300, n_embd=16, n_layer=1, n_head=2, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(folder)


def of_type(kind: str) -> Spoil:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "model_type": kind}))

    return edit


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("*token*"):
        file.unlink()


def adapter_beside(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')


#: How a folder is spoilt, and what is said by extrapolate, boost and generate; None: it is fine.
WRONG: dict[str, tuple[Spoil, str | None, str | None, str | None]] = {
    "empty": (empty, "no weights", *("no config.json",) * 2),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        *("no weights in",) * 3,
    ),
    "pickled": (pickled, *("pickled weights only",) * 3),
    "cut short": (cut, *("cannot read",) * 3),
    "no safetensors": (overwrite("model.safetensors", b"x" * 500), *("cannot read",) * 3),
    "git-lfs": (
        overwrite("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
        *("git lfs pull",) * 3,
    ),
    "a shard is missing": (sharded, *("is missing",) * 3),
    "NaN": (put(DOWN, np.nan), *(f"{DOWN} holds NaN or infinity in",) * 3),
    "infinity": (put("model.norm.weight", np.inf), *("holds NaN or infinity in",) * 3),
    "a tensor is missing": (
        lambda f: change(f, lambda t: t.pop(DOWN)),
        *(f"{DOWN} is only in",) * 2,
        f"lacks 1 tensors of its LlamaForCausalLM, first {DOWN}",
    ),
    "swapped shapes": (lambda f: change(f, swap), *("do not fit",) * 2, "cannot load the model"),
    "another dtype": (lambda f: change(f, to_float16), *(None,) * 3),
    "another architecture": (gpt2, *("do not fit",) * 2, None),
    "an unknown architecture": (of_type("nonesuch"), None, *("nonesuch",) * 2),
    "broken config": (overwrite("config.json", b"{"), *("config.json",) * 3),
    "no tokenizer": (no_tokenizer, None, *("cannot load the tokenizer",) * 2),
    "broken tokenizer": (overwrite("tokenizer.json", b"{"), None, *("the tokenizer",) * 2),
    "a tokenizer in git-lfs": (
        overwrite("tokenizer.json", b"version https://git-lfs.github.com/spec/v1\n"),
        None,
        *("tokenizer.json is a git-lfs pointer, run git lfs pull",) * 2,
    ),
    "no settings": (
        overwrite("generation_config.json", b"[]"),
        None,
        *("generation_config.json is no JSON object",) * 2,
    ),
    "an adapter beside it": (
        adapter_beside,
        "allowed: one kind",
        "the other is not",
        "does not say which base",
    ),
}


#: Of the early model extrapolate reads the weights only.
UNREAD = {("broken config", "extrapolate early")}


@pytest.fixture(scope="module")
def models(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sound checkpoints ``early`` and ``ft``, and ``ft`` spoilt in every way."""
    place = tmp_path_factory.mktemp("models")
    _, ft = checkpoints(tiny_llama, place)
    for number, (spoil, *_) in enumerate(WRONG.values()):
        spoil(Path(shutil.copytree(ft, place / f"wrong{number}")))
    return place


def run(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Exit code, and the line that is no note."""
    monkeypatch.setattr(sys, "argv", ["springback", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == bool(ended.value.code), said
    return int(ended.value.code or 0), lines[0] if lines else ""


def files(place: Path) -> set[Path]:
    return set(place.rglob("*"))


COMMANDS = {
    "extrapolate early": ("extrapolate {wrong} {sound} --mu 0.2 --out out", 0),
    "extrapolate ft": ("extrapolate {sound} {wrong} --mu 0.2 --out out", 0),
    "boost": (
        "boost --early {sound} --ft {wrong} --validation problems --test problems "
        "--validation-rows 4 --test-rows 4 --max-new-tokens 2 --no-precheck --out out",
        1,
    ),
    "generate": ("generate {wrong} hello --max-new-tokens 2", 2),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_model_is_one_line_and_nothing_is_written(
    name: str,
    command: str,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line, which = COMMANDS[command]
    says = None if (name, command) in UNREAD else WRONG[name][1:][which]
    wrong = models / f"wrong{[*WRONG].index(name)}"
    monkeypatch.chdir(tmp_path)
    code, said = run(line.format(sound=models / "early", wrong=wrong).split(), monkeypatch, capsys)
    if says is None:
        assert code == 0
        return
    assert (code, says in said) == (2, True), said
    assert not files(tmp_path)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ("{", "cannot read"),
        ("[]", "is no JSON object"),
        ({"lambda": "much"}, "lambda 'much'"),
        ({"lambda": -1.0}, "lambda -1.0; allowed: a number from 0 up"),
        ({"alpha": 2.0}, "alpha 2.0; allowed: a number from 0 to 1"),
        ({"system": 3}, "system 3; allowed: a text"),
        ({"amateur": "../.."}, "not inside the folder"),
        ({"amateur": "gone"}, "no model at"),
    ],
)
def test_a_boosted_folder_that_was_damaged_is_one_line(
    facts: Any,
    says: str,
    tiny_llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = boosted(tiny_llama, tmp_path)
    record = folder / "springback.json"
    if not isinstance(facts, str):
        facts = json.dumps(json.loads(record.read_text()) | facts)
    record.write_text(facts)
    code, said = run(["generate", str(folder), "hello"], monkeypatch, capsys)
    assert (code, says in said) == (2, True), said


def spoil_adapter(folder: Path, how: str) -> None:
    config = folder / "adapter_config.json"
    weights = folder / "adapter_model.safetensors"
    if how == "cut short":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif how == "broken settings":
        config.write_text("{")
    elif how == "no base":
        told = json.loads(config.read_text())
        config.write_text(json.dumps(told | {"base_model_name_or_path": "/nowhere/at/all"}))
    else:
        tensors = dict(read_adapter(folder))
        name = next(iter(tensors))
        code, array = tensors[name]
        tensors[name] = code, np.full_like(array, np.nan)
        write_adapter(folder, tensors)


def read_adapter(folder: Path) -> Any:
    from safetensors.numpy import load_file

    from weights_files import plain

    return {n: plain(a) for n, a in load_file(folder / "adapter_model.safetensors").items()}


def write_adapter(folder: Path, tensors: Any) -> None:
    from weights_files import write_file

    write_file(folder / "adapter_model.safetensors", tensors)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("cut short", ("cannot read",) * 3),
        ("broken settings", ("cannot read",) * 3),
        ("NaN", ("holds NaN or infinity",) * 3),
        ("no base", ("different base models", "different base", "no model at '/nowhere")),
    ],
)
def test_a_wrong_adapter_is_one_line_and_nothing_is_written(
    how: str,
    says: tuple[str, str, str],
    tiny_llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sound, wrong = (save_adapter(tmp_path / n, tiny_llama, i, r=2) for i, n in enumerate("ab"))
    capsys.readouterr()  # what Transformers says while saving
    spoil_adapter(wrong, how)
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    pair = "--validation problems --test problems --no-precheck --out out"
    for line, part in (
        (f"extrapolate {sound} {wrong} --mu 0.2 --out out", says[0]),
        (f"boost --early {sound} --ft {wrong} --model {tiny_llama} {pair}", says[1]),
        (f"generate {wrong} hello --max-new-tokens 2", says[2]),
    ):
        code, said = run(line.split(), monkeypatch, capsys)
        assert (code, part in said) == (2, True), said
        assert not files(place)


def test_a_text_longer_than_the_model_has_positions_is_one_line(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """GPT-2 has an embedding a position: one more would be an index out of range."""
    folder = models / f"wrong{[*WRONG].index('another architecture')}"
    words = ["generate", str(folder), "--raw", "--max-new-tokens"]
    for new, prompt, code in ((1, 64, 0), (2, 64, 2), (1, 65, 2)):
        for plain in ([], ["--reference"]):
            line = [*words, str(new), "x" * prompt, *plain]
            ended, said = run(line, monkeypatch, capsys)
            assert ended == code, said
            assert code == 0 or "64 positions, which the model has" in said
