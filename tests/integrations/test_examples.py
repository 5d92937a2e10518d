"""The examples are short, run as they are written, and say what they found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="trl is not installed (extra train)")

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

import springback
from boosted_fixture import boosted

# PEFT asks for the name that Transformers is leaving.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))


def run(name: str, *words: object, cwd: Path) -> str:
    """Standard output of a script; tiny models gain nothing from threads."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_each_is_under_sixty_lines() -> None:
    assert SCRIPTS == [
        "audit_dpo.py",
        "boost_lora.py",
        "dpo_conversations.py",
        "evaluate.py",
        "serve_and_call.py",
        "unit_tests.py",
    ]
    for name in SCRIPTS:
        assert len((EXAMPLES / name).read_text().splitlines()) < 60, name


def test_audit_dpo(tiny_llama: Path, tmp_path: Path) -> None:
    rows = [
        {"chosen": f"a thing in the {i} thing", "rejected": f"1 1 he {i} er 1"} for i in range(64)
    ]
    told = run("audit_dpo.py", tiny_llama, write(tmp_path / "rows.jsonl", rows), cwd=tmp_path)
    assert "report: audit-of-dpo/report.html" in told
    assert (tmp_path / "audit-of-dpo/report.html").exists()


def test_dpo_conversations(tiny_llama: Path, tmp_path: Path) -> None:
    def message(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    rows = [
        {
            "prompt": message("user", f"the {i}"),
            "chosen": message("assistant", "thing in the"),
            "rejected": message("assistant", "1 1 1"),
        }
        for i in range(16)
    ]
    preferences = tmp_path / "rows.jsonl"
    preferences.write_text("".join(json.dumps(row) + "\n" for row in rows))
    questions = [{"question": f"1 + {i}?", "answer": str(1 + i)} for i in range(4)]
    asked = write(tmp_path / "asked.jsonl", questions)
    lines = run("dpo_conversations.py", tiny_llama, preferences, asked, cwd=tmp_path).splitlines()
    steps = [line.split()[0] for line in lines if line[:1].isdigit() and "accuracy" in line]
    assert steps == ["0", "4"]
    assert any(line.startswith("4 ") and "elasticity/margin" in line for line in lines)
    assert (tmp_path / "dpo-of-mine/last/adapter_model.safetensors").exists()
    assert "--early dpo-of-mine/early-2" in lines[-1]


def adapters(tiny_llama: Path, folder: Path) -> list[Path]:
    """An adapter, and the same moved a little: two checkpoints of "one run"."""
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    torch.manual_seed(5)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_llama), lora)
    found = []
    for name in ("early", "last"):
        with torch.no_grad():
            for parameter_name, p in model.named_parameters():
                if "lora_" in parameter_name:
                    p.add_(0.2 * torch.randn_like(p))
        model.save_pretrained(str(folder / name))
        found.append(folder / name)
    return found


def test_boost_lora(tiny_llama: Path, tmp_path: Path) -> None:
    early, last = adapters(tiny_llama, tmp_path)
    rows = [{"question": f"what is {i}", "answer": f"{i}"} for i in range(24)]
    told = run(
        "boost_lora.py",
        tiny_llama,
        early,
        last,
        write(tmp_path / "questions.jsonl", rows),
        cwd=tmp_path,
    )
    assert "fine-tuned" in told
    data = json.loads((tmp_path / "boost-of-lora/result.json").read_text())
    (best,) = (r for r in data["analysis"]["methods"] if r["method"] == "EpiCoDe")
    made = tmp_path / "boost-of-lora/adapter"
    assert ("a pair on one base" in told) == (best["lambda"] > 0) == (made / "amateur").is_dir()
    assert PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama), str(made))
    loaded = springback.load(made)
    assert loaded.lam == best["lambda"]
    assert springback.generate(loaded, ["what is 1"], max_new_tokens=4)


def test_serve_and_call(tiny_llama: Path, tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="openai is not installed (make integrations)")
    pytest.importorskip("fastapi", reason="fastapi is not installed (extra serve)")
    told = run("serve_and_call.py", boosted(tiny_llama, tmp_path), "the thing", cwd=tmp_path)
    assert told.rstrip().endswith("server ended with status 0")
    assert len(told.splitlines()[0]) > 0


def test_evaluate(tiny_llama: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed (make integrations)")
    rows = [{"q": "the", "a": "thing"}, {"q": "in", "a": "the"}]
    data = write(tmp_path / "rows.jsonl", rows)
    (tmp_path / "mine.yaml").write_text(
        "task: mine\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {data}}}}}\n"
        "test_split: test\noutput_type: loglikelihood\n"
        'doc_to_text: "{{q}}"\ndoc_to_target: "{{a}}"\ntarget_delimiter: " "\n'
        "metric_list: [{metric: perplexity, aggregation: perplexity, higher_is_better: false}]\n"
    )
    folder = boosted(tiny_llama, tmp_path)
    told = run("evaluate.py", folder, "mine", tmp_path, cwd=tmp_path)
    lines = [line for line in told.splitlines() if " mine " in line]
    assert [line.split()[0] for line in lines] == ["pair", "expert", "amateur"]
    assert len({line.partition("{")[2] for line in lines}) == 3, "three models, three perplexities"


def test_the_notebook_runs_from_top_to_bottom(tiny_llama: Path, tmp_path: Path) -> None:
    text = (EXAMPLES / "audit.ipynb").read_text()
    notebook = json.loads(text)
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    nbformat.validate(nbformat.reads(text, as_version=4))
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert all(not c.get("outputs") for c in notebook["cells"]), "outputs are not committed"
    script = tmp_path / "notebook.py"
    script.write_text("\n\n".join(cells))
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        cwd=tmp_path,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "SPRINGBACK_MODEL": str(tiny_llama),
            "MPLBACKEND": "Agg",
        },
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the whole report: audit-notebook/report.html" in done.stdout
    assert "| quantity" in done.stdout.lower() or "| gain" in done.stdout.lower()
