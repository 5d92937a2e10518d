"""The scorer that reads with a Transformers text classifier, on tiny ones made from a config."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from springback.errors import ModelError, SpringbackError
from springback.probes import load_scorer

TEXTS = [
    "the thing",
    "a heron in the 1970s",
    "in",
    "the other heron sings, and the thing hears",
    "",
]
SIZE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "initializer_range": 0.5,
    "pad_token_id": 3,
}
LABELS: dict[str, Any] = {"id2label": {0: "bad", 1: "so-so", 2: "good"}, "num_labels": 3}


def save(model: PreTrainedModel, tokenizer: Path, folder: Path) -> Path:
    model.save_pretrained(folder)
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def bert(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three labels, at most 32 tokens."""
    torch.manual_seed(0)
    config = BertConfig(**SIZE, **LABELS, max_position_embeddings=32)
    folder = tmp_path_factory.mktemp("classifiers") / "tiny=bert"
    return save(BertForSequenceClassification(config), tiny_tokenizer, folder)


@torch.no_grad()
def plain(kind: type[PreTrainedModel], folder: Path, text: str, limit: int = 32) -> torch.Tensor:
    """Logits (labels,) of one text, without padding."""
    ids = AutoTokenizer.from_pretrained(folder)(text or " ")["input_ids"][:limit]
    model: Any = kind.from_pretrained(folder)  # in evaluation mode
    found: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0].double()
    return found


@pytest.mark.parametrize(("label", "at"), [("=bad", 0), ("=so-so", 1), ("=good", 2), ("", 2)])
def test_score_is_the_probability_of_the_label(bert: Path, label: str, at: int) -> None:
    scorer = load_scorer(f"hf:{bert}{label}")
    found = scorer.score(["a prompt that does not count"] * len(TEXTS), TEXTS)
    expected = [float(plain(BertForSequenceClassification, bert, t).softmax(-1)[at]) for t in TEXTS]
    assert found == pytest.approx(expected, rel=1e-4)
    assert max(expected) - min(expected) > 0.01
    name = ("bad", "so-so", "good")[at]
    assert (scorer.name, scorer.unit) == (f"tiny=bert={name}", "probability")
    assert scorer.direction == f"higher = more surely {name}"
    assert scorer.score([], []) == []


def test_long_texts_are_cut_and_batches_do_not_matter(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokenizer says 512, the model has 32 places."""
    scorer = load_scorer(f"hf:{bert}")
    long = ["in" * 40, "in" * 32]
    both = scorer.score(["", ""], long)
    assert both[0] == pytest.approx(both[1], rel=1e-6)
    prompts = [""] * len(TEXTS)
    whole = scorer.score(prompts, TEXTS)
    monkeypatch.setattr("springback.probes.judges.classifier.CLASSIFIER_BATCH", 2)
    assert scorer.score(prompts, TEXTS) == pytest.approx(whole, rel=1e-5)


def test_a_roberta_has_fewer_places_than_its_config_says(
    tiny_tokenizer: Path, tmp_path: Path
) -> None:
    """Places count from the padding token's id + 1 on: 24 - (3 + 1) = 20."""
    torch.manual_seed(0)
    model = RobertaForSequenceClassification(RobertaConfig(**SIZE, max_position_embeddings=24))
    folder = save(model, tiny_tokenizer, tmp_path / "roberta")
    found = load_scorer(f"hf:{folder}").score([""], ["in" * 30])
    logits = plain(RobertaForSequenceClassification, folder, "in" * 30, limit=20)
    assert found == pytest.approx([float(logits.softmax(-1)[1])], rel=1e-4)


def llama(tokenizer: Path, folder: Path, **config: Any) -> Path:
    torch.manual_seed(0)
    made: Any = LlamaForSequenceClassification  # its constructor has no types
    config = {**SIZE, "num_key_value_heads": 1, **config}
    return save(made(LlamaConfig(**config)), tokenizer, folder)


def test_a_causal_classifier_without_a_padding_token_reads_each_texts_last_token(
    tiny_tokenizer: Path, tmp_path: Path
) -> None:
    folder = llama(tiny_tokenizer, tmp_path / "llama", pad_token_id=None, num_labels=2)
    found = load_scorer(f"hf:{folder}").score([""] * len(TEXTS), TEXTS)
    expected = [
        float(plain(LlamaForSequenceClassification, folder, t).softmax(-1)[1]) for t in TEXTS
    ]
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "config",
    [{"num_labels": 1}, {"num_labels": 2, "problem_type": "multi_label_classification"}],
)
def test_labels_that_do_not_exclude_each_other_have_a_sigmoid(
    tiny_tokenizer: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    folder = llama(tiny_tokenizer, tmp_path / "llama", **config)
    found = load_scorer(f"hf:{folder}").score([""], ["a heron"])
    logits = plain(LlamaForSequenceClassification, folder, "a heron")
    assert found == pytest.approx([float(logits.sigmoid()[-1])], rel=1e-4)


def test_an_unknown_label_names_those_allowed(bert: Path) -> None:
    with pytest.raises(SpringbackError, match="no label 'GOOD'; allowed: bad, so-so, good"):
        load_scorer(f"hf:{bert}=GOOD")


def test_a_language_model_is_no_classifier(tiny_llama: Path) -> None:
    """Transformers would give it a random head."""
    with pytest.raises(ModelError, match=r"no text classifier: its file lacks score\.weight"):
        load_scorer(f"hf:{tiny_llama}")


def test_a_regression_is_refused(tiny_tokenizer: Path, tmp_path: Path) -> None:
    folder = llama(tiny_tokenizer, tmp_path / "cost", num_labels=1, problem_type="regression")
    with pytest.raises(ModelError, match="a score, not the probability"):
        load_scorer(f"hf:{folder}")


def test_pickled_weights_are_refused(bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(bert, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled weights only"):
        load_scorer(f"hf:{folder}")


def test_identity_is_that_of_weights_and_label(bert: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bert, copy)
    there = load_scorer(f"hf:{bert}=bad").identity
    assert load_scorer(f"hf:{copy}=bad").identity == there
    assert load_scorer(f"hf:{copy}=good").identity != there
