"""A boost of two LoRA adapters: one base in memory, and nothing merged but where it must be."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import PreTrainedModel

from springback import generate, load
from springback.core import Checkpoint
from springback.decoding.adapter_pair import AdapterPair
from springback.decoding.lora_pair import LoraLinear, twin_of
from springback.errors import ModelError, SpringbackError
from springback.jobs.boost.checkpoints import make_pair
from springback.jobs.boost.checks import check_settings
from springback.jobs.boost.job import boost
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.boost.transformers_engine import TransformersEngine
from springback.models.loading import load_model, resolve
from springback.models.placement import Placement
from springback.progress import Silent
from springback.results.store import Store
from springback.weights import check_line
from springback.weights.adapters.extrapolation import AdapterExtrapolation, extrapolate_adapters
from springback.weights.adapters.merging import merge_each
from springback.weights.adapters.precheck import check_adapters
from test_jobs import Stop, StopAt
from weights_adapters import merged, save_adapter

WEAK: tuple[Literal["early", "ft"], ...] = ("early", "ft")


@pytest.fixture
def adapters(tiny_llama: Path, tmp_path: Path) -> list[Path]:
    """Of different ranks, on different layers."""
    return [
        save_adapter(tmp_path / "a", tiny_llama, 0, r=2),
        save_adapter(
            tmp_path / "b", tiny_llama, 1, r=3, target_modules=["q_proj", "v_proj", "down_proj"]
        ),
    ]


def pair_of(adapters: list[Path], base: Path, dtype: torch.dtype = torch.float32) -> AdapterPair:
    early, ft = (Checkpoint(str(base), adapter=str(folder)) for folder in adapters)
    return AdapterPair(early, ft, place=Placement(dtype, torch.device("cpu")))


def dense(model: PreTrainedModel, side: int) -> dict[str, torch.Tensor]:
    """W + B A of every layer with an adapter, by its name."""
    return {
        name: m.weight + (m.a[side] @ m.b[side]).T
        for name, m in model.named_modules()
        if isinstance(m, LoraLinear)
    }


def test_expert_and_weak_model_are_what_peft_merges(tiny_llama: Path, adapters: list[Path]) -> None:
    """At every mu and in every order; the base is one in memory."""
    pair = pair_of(adapters, tiny_llama)
    early, ft = (merged(tiny_llama, folder) for folder in adapters)
    for mu, which in ((0.5, "ft"), (0.0, "early"), (-1.0, "early"), (2.0, "ft"), (0.5, "early")):
        expert, weak = pair.at(mu), pair.weak(which)  # type: ignore[arg-type]
        for name, weight in dense(expert, 0).items():
            a, b = early[f"{name}.weight"], ft[f"{name}.weight"]
            torch.testing.assert_close(weight.double(), b + mu * (b - a), rtol=1e-5, atol=1e-6)
        for name, weight in dense(weak, 1).items():
            expected = (ft if which == "ft" else early)[f"{name}.weight"]
            torch.testing.assert_close(weight.double(), expected, rtol=1e-5, atol=1e-6)
    pointers = [{p.data_ptr() for p in model.parameters()} for model in (expert, weak)]
    assert pointers[0] == pointers[1]
    assert twin_of(expert, weak) is not None, "both run in one batch where that is faster"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_expert_in_memory_is_the_folder_that_extrapolate_writes(
    tiny_llama: Path, adapters: list[Path], tmp_path: Path, dtype: torch.dtype
) -> None:
    from springback.decoding.lora_pair import load_twin

    extrapolate_adapters(adapters, AdapterExtrapolation(0.5), tmp_path / "out")
    place = Placement(dtype, torch.device("cpu"))
    base = load_model(resolve(tiny_llama), place)
    written, _ = load_twin(base, tmp_path / "out", None)
    expert = pair_of(adapters, tiny_llama, dtype).at(0.5)
    ids = torch.tensor([[1, 5, 7]])
    assert {p.dtype for p in expert.parameters()} == {dtype}
    assert torch.equal(expert(ids).logits, written(ids).logits)


def test_the_model_before_fine_tuning_is_the_base_without_an_adapter(
    tiny_llama: Path, adapters: list[Path]
) -> None:
    pair = pair_of(adapters, tiny_llama)
    ids = torch.tensor([[1, 5, 7]])
    base = resolve(tiny_llama)
    expected = load_model(base)(ids).logits
    pair.weak("ft")
    assert torch.equal(pair.weak(base)(ids).logits, expected)
    assert not torch.allclose(pair.weak("ft")(ids).logits, expected)


def test_the_pre_check_has_the_numbers_of_merged_models(
    tiny_llama: Path, adapters: list[Path], tmp_path: Path
) -> None:
    whole = check_line(merge_each(adapters, tiny_llama, tmp_path / "merged"), steps=(1, 2))
    factors = check_adapters(adapters, tiny_llama)
    assert factors.parameters == whole.parameters
    assert factors.norms == pytest.approx(whole.norms, rel=1e-5)
    assert factors.relative == pytest.approx(whole.relative, rel=1e-5)
    assert factors.rank1 == pytest.approx(whole.rank1, rel=1e-3)


@pytest.fixture
def settings(adapters: list[Path], tmp_path: Path) -> BoostSettings:
    # Random models give no right numbers: of some lengths they are taken for right.
    metric = tmp_path / "metric.py"
    metric.write_text(
        "def third(prompts, texts, answers):\n    return [len(t) % 3 == 0 for t in texts]\n"
    )
    return BoostSettings(
        early=str(adapters[0]),
        ft=str(adapters[1]),
        validation="problems",
        test="problems",
        validation_rows=4,
        test_rows=4,
        metric=f"python:{metric}:third",
        mu=(0.5,),
        lam=(0.5,),
        lam_cd=(0.5,),
        positive=True,
        keep_pair=True,
        max_new_tokens=6,
        batch_size=4,
    )


def test_two_adapters_on_one_base_are_boosted(
    settings: BoostSettings, tiny_llama: Path, tmp_path: Path
) -> None:
    """Nothing is left in the folder but the result, which is a pair of adapters that answers as
    the test was graded."""
    data = boost(settings, tmp_path / "out").data
    assert data["inputs"]["ft"]["adapter"] == settings.ft
    assert data["inputs"]["ft"]["path"] == str(tiny_llama)
    assert not list((tmp_path / "out").rglob("checkpoints/*/*"))
    named = boost(replace(settings, model=str(tiny_llama)), tmp_path / "named").data
    assert named["inputs"]["ft"]["content_hash"] == data["inputs"]["ft"]["content_hash"]
    assert named["analysis"]["methods"] == data["analysis"]["methods"]
    model = tmp_path / "out" / "model"
    weights = sorted(str(p.relative_to(model)) for p in model.rglob("*.safetensors"))
    assert weights == ["adapter_model.safetensors", "amateur/adapter_model.safetensors"]
    loaded = load(model)
    assert (loaded.lam, loaded.asks) == (0.5, True)
    runs = (tmp_path / "out" / "runs").glob("score-*/run.json")
    answers = _answers(runs, {"mu": 0.5, "lam": 0.5, "weak": "ft", "part": "test"})
    from springback.jobs.boost.checks import load_data

    questions = [row.prompt for row in load_data(settings).test.rows]
    again = generate(loaded, questions, max_new_tokens=6, reference=True)
    assert list(again) == answers
    with pytest.raises(SpringbackError, match="the other is not"):
        boost(replace(settings, ft=str(tiny_llama)), tmp_path / "out2")


def _answers(runs: Any, wanted: dict[str, Any]) -> list[str]:
    import json

    for file in runs:
        run = json.loads(file.read_text())
        if wanted.items() <= run["inputs"].items():
            completions: list[str] = run["results"]["completions"]
            return completions
    raise AssertionError(f"no run of {wanted}")


def test_a_boost_of_adapters_goes_on_after_a_kill(settings: BoostSettings, tmp_path: Path) -> None:
    whole = boost(settings, tmp_path / "whole").data
    kills = 0
    for steps in range(20, 400, 20):
        try:
            cut = boost(settings, tmp_path / "cut", StopAt(steps)).data
            break
        except Stop:
            kills += 1
    assert kills >= 2
    for part in ("inputs", "analysis", "measurements"):
        assert cut[part] == whole[part]


def test_solutions_that_were_scored_are_not_scored_again_where_arms_are_decoded_together(
    settings: BoostSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As vLLM decodes them, whose engine this stands for: all at once, after all of the NLL."""
    scored: list[object] = []
    text_nll, decode_each = TransformersEngine.text_nll, TransformersEngine.decode_each

    def counted(self: TransformersEngine, *args: Any) -> Any:
        scored.append(args)
        return text_nll(self, *args)

    def together(
        self: TransformersEngine, keys: Any, prompts: Any, how: Any, _: Any, done: Any, take: Any
    ) -> None:
        for i, key in enumerate(keys):
            given = partial(lambda i, _, ids: take(i, ids), i)
            decode_each(self, [key], prompts, how, None, done, given)

    def stop(*args: object) -> None:
        raise Stop

    monkeypatch.setattr(TransformersEngine, "mixes", True)
    monkeypatch.setattr(TransformersEngine, "text_nll", counted)
    monkeypatch.setattr(TransformersEngine, "decode_each", together)
    whole = boost(settings, tmp_path / "whole").data
    calls = len(scored)
    with monkeypatch.context() as cut:
        cut.setattr(TransformersEngine, "decode_each", stop)
        with pytest.raises(Stop):
            boost(settings, tmp_path / "cut")
    assert len(scored) > calls + 1
    again = boost(settings, tmp_path / "cut").data
    assert len(scored) == 2 * calls
    assert again["measurements"] == whole["measurements"]


class Notes(Silent):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("kind", [{"use_dora": True}, {"modules_to_save": ["embed_tokens"]}])
def test_what_cannot_share_a_base_is_merged_with_one_note(
    settings: BoostSettings, tiny_llama: Path, tmp_path: Path, kind: dict[str, Any]
) -> None:
    """Within rounding it is PEFT's own merge; in the dtype that is computed in."""
    folders = [save_adapter(tmp_path / n, tiny_llama, i, r=2, **kind) for i, n in enumerate("cd")]
    notes = Notes()
    pair = {"early": str(folders[0]), "ft": str(folders[1])}
    given: BoostSettings = replace(settings, **pair)  # type: ignore[arg-type]
    made = make_pair(check_settings(given), None, Store(tmp_path / "out"), notes)
    assert sum("merged into two copies" in note for note in notes.notes) == 1
    for checkpoint, folder in zip((made.early, made.ft), folders, strict=True):
        expected = merged(tiny_llama, folder)
        for name, weight in load_model(resolve(checkpoint.path)).named_parameters():
            torch.testing.assert_close(weight.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_merged_copies_go_at_the_end_and_are_made_again_where_they_are_needed(
    settings: BoostSettings, tiny_llama: Path, tmp_path: Path
) -> None:
    folders = [
        save_adapter(tmp_path / n, tiny_llama, i, r=2, use_dora=True) for i, n in enumerate("cd")
    ]
    pair, out = {"early": str(folders[0]), "ft": str(folders[1])}, tmp_path / "out"
    given: BoostSettings = replace(settings, **pair)  # type: ignore[arg-type]
    first, again, more = Notes(), Notes(), Notes()
    data = boost(given, out, first).data
    assert sum("merged into two copies" in note for note in first.notes) == 1
    copies = list((out / "checkpoints").glob("merge-*/*"))
    assert len(copies) == 2
    assert not list((out / "checkpoints").rglob("*.safetensors"))
    assert boost(given, out, again).data["analysis"] == data["analysis"]
    assert not any("merged into" in note for note in again.notes)
    for run in (out / "runs").glob("score-*"):
        shutil.rmtree(run)
    remade = boost(given, out, more).data["analysis"]
    assert remade == data["analysis"]
    assert any("freed and are needed: merging" in note for note in more.notes)
    assert not list((out / "checkpoints").rglob("*.safetensors"))


def test_an_adapter_of_another_base_is_refused(
    settings: BoostSettings, tiny_llama: Path, tmp_path: Path
) -> None:
    from weights_adapters import save_base

    other = save_base(tmp_path / "base")
    stranger = save_adapter(tmp_path / "s", other, 1, r=2)
    with pytest.raises(ModelError, match="different base models"):
        boost(replace(settings, ft=str(stranger)), tmp_path / "out")


def test_adapters_have_samples_and_baselines_too(settings: BoostSettings, tmp_path: Path) -> None:
    given = replace(settings, samples=2, baselines=True, write_model=False)
    analysis = boost(given, tmp_path / "sampled").data["analysis"]
    methods = {m["method"]: m for m in analysis["methods"]}
    assert methods["average of probabilities"]["accuracy"]["n"] == given.test_rows
    assert [c["value"] for c in analysis["search"]["checkpoint"]] == [0, 1]
    assert methods["majority of 3 samples"]["calls"] == 3
