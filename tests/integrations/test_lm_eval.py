"""lm-eval itself scores and generates with a boosted folder as springback does."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed (make integrations)")

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from typer.testing import CliRunner

import springback
from boosted_fixture import ALPHA, LAM, boosted
from springback.cli.app import app
from springback.decoding import DecodeSettings, decode
from springback.errors import ModelError, SpringbackError
from springback.inference import Loaded
from springback.integrations import lm_eval as adapter
from springback.models.encoding import Encoded
from springback.probes import nll, pair_nll
from springback.weights import AdapterExtrapolation, Contrast, write_adapter_pair
from weights_adapters import save_adapter

HALVES = ("expert", "amateur")

ROWS = [
    {"question": "the thing", "choices": ["in the", " a thing in", "1 1 1"], "gold": 0},
    {"question": "a", "choices": ["the", "ing", " 11 the"], "gold": 2},
    {"question": "in the thing in the", "choices": ["he", "a", " the er"], "gold": 1},
]
CHOICE = """
task: local_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
target_delimiter: " "
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
GENERATE = """
task: local_generate
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[0]}}}}"
generation_kwargs: {{until: ["1"], max_gen_toks: 12, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture(scope="module")
def folder(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boosted(tiny_llama, tmp_path_factory.mktemp("boosted"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return springback.load(folder)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tasks")
    rows = made / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name, text in (("choice", CHOICE), ("generate", GENERATE)):
        (made / f"{name}.yaml").write_text(text.format(rows=rows))
    return made


def run(folder: Path, tasks: Path, out: Path, model_args: str = "", batch: str = "2") -> Any:
    """lm-eval's own command line; its samples by task."""
    args = f"pretrained={folder},dtype=float64{model_args}"
    words = ["run", "--model", "springback", "--model_args", args, "--include_path", str(tasks)]
    words += ["--tasks", "local_choice,local_generate", "--batch_size", batch]
    words += ["--output_path", str(out), "--log_samples"]
    adapter.main(words)
    found = {}
    for path in out.rglob("samples_*.jsonl"):
        task = path.name.removeprefix("samples_").rpartition("_")[0]
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found[task] = sorted(lines, key=lambda line: int(line["doc_id"]))
    return found


def scores(samples: Any) -> list[float]:
    return [float(answer[0]) for line in samples for answer in line["filtered_resps"]]


def encoded(loaded: Loaded) -> list[Encoded]:
    """Every choice after its question, tokens as the harness splits them: at the space."""
    rows = []
    for row in ROWS:
        for choice in row["choices"]:  # type: ignore[attr-defined]
            head = loaded.tokenizer(row["question"])["input_ids"]
            whole = loaded.tokenizer(f"{row['question']} {choice}")["input_ids"]
            assert whole[: len(head)] == head
            rows.append(Encoded(tuple(whole), len(head), 0))
    return rows


@pytest.mark.parametrize("batch", ["2", "auto"])
def test_the_pair_scores_and_generates_as_ours(
    folder: Path, loaded: Loaded, tasks: Path, tmp_path: Path, batch: str
) -> None:
    found = run(folder, tasks, tmp_path, batch=batch)
    assert loaded.amateur is not None
    expert, amateur = loaded.expert.double(), loaded.amateur.double()
    ours = pair_nll(expert, amateur, encoded(loaded), loaded.tokenizer, [LAM])[LAM]
    assert scores(found["local_choice"]) == pytest.approx([-s.nats for s in ours], abs=1e-4)
    prompts = [loaded.tokenizer(row["question"])["input_ids"] for row in ROWS]
    how = DecodeSettings(12, lam=LAM, alpha=ALPHA, stop_ids=(2,))
    answers = decode(expert, prompts, how, amateur)
    texts = [loaded.tokenizer.decode(a, skip_special_tokens=True) for a in answers]
    assert [line["resps"][0][0] for line in found["local_generate"]] == [
        text.partition("1")[0] for text in texts
    ]
    assert len({*texts}) > 1


@pytest.mark.parametrize("part", ["expert", "amateur"])
def test_one_half_scores_as_that_half(
    folder: Path, loaded: Loaded, tasks: Path, tmp_path: Path, part: str
) -> None:
    found = run(folder, tasks, tmp_path, f",part={part}")
    half = getattr(loaded, part).double()
    ours = nll(half, encoded(loaded), loaded.tokenizer)
    assert scores(found["local_choice"]) == pytest.approx([-s.nats for s in ours], abs=1e-4)
    prompts = [loaded.tokenizer(row["question"])["input_ids"] for row in ROWS]
    answers = decode(half, prompts, DecodeSettings(12, stop_ids=(2,)))
    texts = [loaded.tokenizer.decode(a, skip_special_tokens=True) for a in answers]
    assert [line["resps"][0][0] for line in found["local_generate"]] == [
        text.partition("1")[0] for text in texts
    ]


def test_two_adapters_on_one_base_score_and_generate_as_ours(
    tiny_llama: Path, tasks: Path, tmp_path: Path
) -> None:
    """The base is in memory once, in the dtype that was asked for, for both halves."""
    early = save_adapter(tmp_path / "early", tiny_llama, 1, r=2)
    ft = save_adapter(tmp_path / "ft", tiny_llama, 2, r=2)
    pair = tmp_path / "pair"
    write_adapter_pair([early, ft], AdapterExtrapolation(0.5), Contrast(LAM, ALPHA), pair)
    found = run(pair, tasks, tmp_path / "out")
    ours = springback.load(pair)
    expert, amateur = ours.expert.double(), ours.amateur.double()  # type: ignore[union-attr]
    told = pair_nll(expert, amateur, encoded(ours), ours.tokenizer, [LAM])[LAM]
    assert scores(found["local_choice"]) == pytest.approx([-s.nats for s in told], abs=1e-4)
    prompts = [ours.tokenizer(row["question"])["input_ids"] for row in ROWS]
    how = DecodeSettings(12, lam=LAM, alpha=ALPHA, stop_ids=(2,))
    texts = [
        ours.tokenizer.decode(a, skip_special_tokens=True)
        for a in decode(expert, prompts, how, amateur)
    ]
    assert [line["resps"][0][0] for line in found["local_generate"]] == [
        text.partition("1")[0] for text in texts
    ]
    halves = [scores(run(pair, tasks, tmp_path / p, f",part={p}")["local_choice"]) for p in HALVES]
    assert halves[0] != halves[1] != scores(found["local_choice"])


def test_dtype_and_device_map_by_lm_evals_names(folder: Path, tasks: Path, tmp_path: Path) -> None:
    model = adapter.SpringbackLM(str(folder), dtype="bfloat16", device="cpu")
    assert model._strong.dtype == model._weak.dtype == torch.bfloat16
    stays = ("model.layers", "model.norm", "model.rotary_emb")
    away = {"model.embed_tokens": "disk", "lm_head": "disk", **dict.fromkeys(stays, "cpu")}
    spread = adapter.SpringbackLM(str(folder), device="cuda:0", device_map=away)
    assert next(spread._strong.parameters()).is_meta
    assert spread.device == torch.device("cpu")
    whole = adapter.SpringbackLM(str(folder), parallelize=True)
    ids = torch.tensor([[10, 20, 30]])
    assert torch.equal(spread._model_call(ids), whole._model_call(ids))
    with pytest.raises(ModelError, match="dtype=int8"):
        adapter.SpringbackLM(str(folder), dtype="int8")


def test_a_lambda_of_ones_own(folder: Path, loaded: Loaded) -> None:
    model = adapter.SpringbackLM(str(folder), lam=0.5, dtype="float64")
    ids = torch.tensor([[10, 20, 30]])
    pair = loaded.expert.double()(ids).logits, loaded.amateur.double()(ids).logits  # type: ignore[union-attr]
    expected = (pair[0] + 0.5 * (pair[0] - pair[1])).log_softmax(-1)
    torch.testing.assert_close(model._model_call(ids).log_softmax(-1), expected)
    assert adapter.SpringbackLM(str(folder), lam=0.0)._weak is None


def test_samples_differ_from_batch_to_batch_and_repeat_by_seed(folder: Path) -> None:
    model, again = (adapter.SpringbackLM(str(folder), seed=5) for _ in range(2))
    context = torch.tensor([[10, 20, 30]])
    options: Any = {"do_sample": True, "temperature": 1.0, "top_k": 50}
    first, second = (model._model_generate(context, 20, [], **options).tolist() for _ in range(2))
    assert first != second
    assert again._model_generate(context, 20, [], **options).tolist() == first


def test_auto_fits_into_memory_on_a_cpu(folder: Path) -> None:
    model = adapter.SpringbackLM(str(folder), batch_size="auto", max_batch_size=8)
    assert model._detect_batch_size() == 8
    # 5 copies of fp32 logits over 300 tokens; 2 halves * 2 layers * (k, v) * 2 heads * 16 * 4 B
    assert model._bytes_a_token() == 5 * 300 * 4
    model._generating = True
    assert model._bytes_a_token() == 2 * 2 * 2 * 2 * 16 * 4


def test_what_cannot_be_followed_is_refused(folder: Path, tiny_llama: Path) -> None:
    with pytest.raises(ModelError, match="given: part=both; allowed: pair, expert, amateur"):
        adapter.SpringbackLM(str(folder), part="both")
    with pytest.raises(ModelError, match="model without one"):
        adapter.SpringbackLM(str(tiny_llama), part="amateur")
    with pytest.raises(ModelError, match=r"lam=1\.0 with one model"):
        adapter.SpringbackLM(str(folder), part="expert", lam=1.0)
    model = adapter.SpringbackLM(str(folder))
    with pytest.raises(SpringbackError, match="generation options num_beams"):
        model._model_generate(torch.tensor([[10]]), 3, [], num_beams=2)


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 1, "num_return_sequences": 1, "early_stopping": False, "length_penalty": 1.0},
        dict.fromkeys(("temperature", "top_k", "top_p", "until", "do_sample", "stop_strings")),
        {"top_k": -1, "min_new_tokens": 0, "no_repeat_ngram_size": 0, "typical_p": 1.0},
        {"use_cache": True, "pad_token_id": 2, "output_scores": False},
        {"do_sample": False, "temperature": 1.0},
    ],
)
def test_settings_that_ask_for_nothing_change_nothing(
    folder: Path, options: dict[str, Any]
) -> None:
    model = adapter.SpringbackLM(str(folder))

    def answer(**more: Any) -> list[str]:
        asked = Instance("generate_until", {}, ("the thing", {"max_gen_toks": 8, **more}), 0)
        return list(model.generate_until([asked], disable_tqdm=True))

    assert answer(**options) == answer()
    sampled = {"do_sample": True, "temperature": None}  # not 0
    assert model._decode_settings(3, 0, (), sampled).temperature == 1.0


def test_the_entry_point_that_later_versions_look_for_is_the_model_of_that_name() -> None:
    project = Path(__file__).parents[2] / "pyproject.toml"
    points = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["entry-points"]
    ((name, place),) = points["lm_eval.models"].items()
    assert EntryPoint(name, place, "lm_eval.models").load() is get_model(name)


def test_everything_behind_the_command_is_lm_evals(capfd: pytest.CaptureFixture[str]) -> None:
    done = CliRunner().invoke(app, ["lm-eval", "run", "--help"])
    assert done.exit_code == 0
    assert "--include_path" in done.output + capfd.readouterr().out


REFUSING = (
    "{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ raise_exception('No system') }}{% endif %}"
    "<|im_start|>{{ m['role'] }} {{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{{ effort }}{% endif %}"
)


def test_chat_templates_are_applied_as_everywhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    made: list[str] = []

    def evaluate() -> None:
        model = adapter.SpringbackLM(str(folder))
        model.tokenizer.chat_template = REFUSING
        made.append(model.apply_chat_template(chat))
        answered = [*chat, {"role": "assistant", "content": "so"}]
        made.append(model.apply_chat_template(answered, add_generation_prompt=False))
        assert model.get_model_info()["chat_template_args"] == {"effort": "low"}

    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", evaluate)
    words = ["--chat-template-args", "effort=low", "run"]
    with pytest.raises(SpringbackError, match=r"No system.*--system-in-user"):
        adapter.main(words)
    adapter.main([*words, "--system-in-user"])
    user = "<|im_start|>user s\n\nu<|im_end|>"
    assert made == [f"{user}<|im_start|>assistantlow", f"{user}<|im_start|>assistant so"]
    plain = adapter.SpringbackLM(str(folder), chat_template_args={"effort": "high"})
    assert plain.get_model_info()["chat_template_args"] == {"effort": "high"}
