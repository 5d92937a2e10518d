"""Judges that see prompt and answer, several at once, and how a spec names them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from springback.errors import ModelError, SpringbackError
from springback.probes import load_scorer, load_scorers
from springback.probes.judges.rubrics import TEXTS, split_rubric
from springback.results.judge_info import JUDGES, RUBRICS, JudgeInfo, split_judges

PROMPTS = ["the thing", "in the 1970s", "a heron"]
TEXTS_HERE = ["sings", "the other heron hears", ""]
SIZE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "initializer_range": 0.5,
    "pad_token_id": 3,
}


def save(model: Any, tokenizer: Path, folder: Path) -> Path:
    model.save_pretrained(folder)
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    return folder


@pytest.mark.parametrize(
    ("text", "judges"),
    [
        ("vader", ["vader"]),
        ("vader,refusal", ["vader", "refusal"]),
        (" refusal , hf:org/x=BAD ", ["refusal", "hf:org/x=BAD"]),
        ("hf:a,b=BAD,vader", ["hf:a,b=BAD", "vader"]),  # a comma in a path
        ("python:/x,y/f.py:g,pack.mod:h", ["python:/x,y/f.py:g", "pack.mod:h"]),
        (
            "openai:http://127.0.0.1:8000/v1#m,n=harmful,model:/x/y",
            ["openai:http://127.0.0.1:8000/v1#m,n=harmful", "model:/x/y"],
        ),
        ("vader,wader", ["vader,wader"]),  # refused whole
    ],
)
def test_commas_separate_judges_and_nothing_else(text: str, judges: list[str]) -> None:
    assert split_judges(text) == judges


def test_several_judges_keep_their_order_and_have_names_of_their_own(tmp_path: Path) -> None:
    for name in ("one", "two"):
        source = f"def f(texts):  # {name}\n    return map(len, texts)\n"
        (tmp_path / f"{name}.py").write_text(source)
    spec = f"refusal,python:{tmp_path}/one.py:f,vader,python:{tmp_path}/two.py:f"
    scorers = load_scorers(spec)
    assert [s.name for s in scorers] == ["refusal", "f", "vader", "f (2)"]
    assert [s.cut for s in scorers] == [0.5, None, None, None]
    with pytest.raises(SpringbackError, match="names the judge refusal twice"):
        load_scorers("refusal,vader,refusal")
    with pytest.raises(SpringbackError, match="allowed: vader, refusal, hf:MODEL"):
        load_scorers("vader,wader")


def test_a_new_judge_is_an_entry_and_a_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_judges.py").write_text(
        "from springback.probes import Scorer\n"
        "def capitals(spec):\n"
        "    def numbers(prompts, texts):\n"
        "        return [sum(map(str.isupper, t)) for t in texts]\n"
        "    return Scorer(spec, 'letters', 'higher = louder', spec, numbers)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(JUDGES, "capitals", JudgeInfo("capitals:WHICH", "my_judges:capitals"))
    vader, mine = load_scorers("vader,capitals:all")
    assert (vader.name, mine.name) == ("vader", "capitals:all")
    assert mine.score(["", ""], ["Ab", "CD"]) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("source", "score"),
    [
        (
            "def f(prompts, texts):\n    return [len(p) - len(t) for p, t in zip(prompts, texts)]",
            [1, 0],
        ),
        ("def f(texts):\n    return map(len, texts)", [1, 1]),
        ("def f(prompt, answer):\n    return 10 * len(prompt) + len(answer)", [21, 11]),
        ("def f(prompts, texts, scale=3):\n    return [scale for _ in texts]", [3, 3]),
        ("def f(*lists):\n    return [len(lists) for _ in lists[1]]", [2, 2]),
    ],
)
def test_a_functions_parameters_say_what_it_is_given(
    tmp_path: Path, source: str, score: list[float]
) -> None:
    (tmp_path / "mine.py").write_text(source + "\n")
    scorer = load_scorer(f"python:{tmp_path}/mine.py:f")
    assert scorer.score(["ab", "c"], ["d", "e"]) == score
    assert scorer.asked == ("prompt, answer" in source)


def test_a_function_of_one_pair_that_fails_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def f(prompt, answer):\n    return 1 / len(answer)\n")
    scorer = load_scorer(f"python:{tmp_path}/mine.py:f")
    message = r"ZeroDivisionError.*: f\(prompt, answer\), which returns one number; mend"
    with pytest.raises(SpringbackError, match=message):
        scorer.score(["a"], [""])


@pytest.fixture(scope="module")
def bert(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    labels: dict[str, Any] = {"id2label": {0: "bad", 1: "so-so", 2: "good"}, "num_labels": 3}
    model = BertForSequenceClassification(BertConfig(**SIZE, **labels, max_position_embeddings=32))
    return save(model, tiny_tokenizer, tmp_path_factory.mktemp("judges") / "bert")


@torch.no_grad()
def test_a_classifier_reads_prompt_and_answer_as_a_pair(bert: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bert)
    model: Any = BertForSequenceClassification.from_pretrained(bert)
    expected = []
    for pair in zip(PROMPTS, TEXTS_HERE, strict=True):
        ids = tokenizer(pair[0], pair[1] or " ", return_tensors="pt")
        expected.append(float(model(**ids).logits[0].double().softmax(-1)[0]))
    scorer = load_scorer(f"hf:{bert}=bad+prompt")
    assert scorer.score(PROMPTS, TEXTS_HERE) == pytest.approx(expected, rel=1e-4)
    assert scorer.asked
    alone = load_scorer(f"hf:{bert}=bad")
    assert not alone.asked
    assert alone.score(PROMPTS, TEXTS_HERE) != pytest.approx(expected, rel=1e-4)
    assert alone.identity != scorer.identity
    # Too long together: cut to what the model has places for, here 32.
    assert len(scorer.score(["in" * 40], ["the" * 40])) == 1


def test_a_share_is_one_where_the_label_is_the_likeliest(bert: Path) -> None:
    texts = [*TEXTS_HERE, "the", "1970s in", "a heron sings"]
    prompts = [""] * len(texts)
    names = ("bad", "so-so", "good")
    by_label = [load_scorer(f"hf:{bert}={name}").score(prompts, texts) for name in names]
    shares = [load_scorer(f"hf:{bert}={name}+share") for name in names]
    for i, each in enumerate(zip(*(s.score(prompts, texts) for s in shares), strict=True)):
        most = max(range(3), key=lambda label: by_label[label][i])
        assert each == tuple(float(label == most) for label in range(3))
    assert (shares[0].unit, shares[0].direction) == ("share bad", "higher = more often bad")
    assert load_scorer(f"hf:{bert}+share+prompt").name == "bert=good+prompt+share"


def test_the_papers_sentiment_score_is_a_share_of_a_roberta(
    tiny_tokenizer: Path, tmp_path: Path
) -> None:
    """The class of model that the IMDb score is made with, under its label."""
    from springback.jobs.papers.reproductions import SENTIMENT

    torch.manual_seed(0)
    config = RobertaConfig(
        **SIZE, max_position_embeddings=64, id2label={0: "NEGATIVE", 1: "POSITIVE"}
    )
    folder = save(RobertaForSequenceClassification(config), tiny_tokenizer, tmp_path / "roberta")
    scorer = load_scorer(SENTIMENT.replace("siebert/sentiment-roberta-large-english", str(folder)))
    probabilities = load_scorer(f"hf:{folder}=POSITIVE").score(PROMPTS, TEXTS_HERE)
    assert scorer.score(PROMPTS, TEXTS_HERE) == [float(p > 0.5) for p in probabilities]
    assert scorer.unit == "share POSITIVE"


def cost_model(tokenizer: Path, folder: Path, head: str = "score_head", **config: Any) -> Path:
    """A Llama with one score, its head under safe-rlhf's name, and with a bias."""
    torch.manual_seed(0)
    made: Any = LlamaForSequenceClassification
    shape: dict[str, Any] = {**SIZE, "num_key_value_heads": 1, "num_labels": 1}
    save(made(LlamaConfig(**shape)), tokenizer, folder)
    weights = load_file(folder / "model.safetensors")
    weights[f"{head}.weight"] = weights.pop("score.weight")
    if head == "score_head":
        weights["score_head.bias"] = torch.tensor([0.25])
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    said = json.loads((folder / "config.json").read_text())
    said |= {"architectures": ["LlamaModelForScore"], "score_type": "cost", **config}
    (folder / "config.json").write_text(json.dumps(said))
    return folder


@torch.no_grad()
def costs(folder: Path) -> list[float]:
    """By Transformers' class: the head's weight put back under its own name."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    head = weights.get("score_head.weight", weights.get("score.weight"))
    bias = float(weights.get("score_head.bias", torch.zeros(1)))
    model: Any = LlamaForSequenceClassification.from_pretrained(folder)
    assert head is not None
    model.score.weight.copy_(head)
    each = []
    for prompt, answer in zip(PROMPTS, TEXTS_HERE, strict=True):
        text = f"BEGINNING OF CONVERSATION: USER: {prompt} ASSISTANT:{answer}"
        each.append(float(model(**tokenizer(text, return_tensors="pt")).logits[0, 0]) + bias)
    return each


@pytest.mark.parametrize("head", ["score_head", "score"])
def test_a_cost_model_scores_the_last_token_of_the_conversation(
    tiny_tokenizer: Path, tmp_path: Path, head: str
) -> None:
    folder = cost_model(tiny_tokenizer, tmp_path / "cost", head)
    scorer = load_scorer(f"score:{folder}")
    found = scorer.score(PROMPTS, TEXTS_HERE)
    assert found == pytest.approx(costs(folder), rel=1e-4, abs=1e-5)
    assert max(found) - min(found) > 0.01
    assert (scorer.unit, scorer.asked) == ("cost", True)
    assert scorer.cut is not None
    assert 0 < scorer.cut < 1e-300  # unsafe is above 0


def test_a_cost_is_divided_by_the_deviation_where_the_config_says_so(
    tiny_tokenizer: Path, tmp_path: Path
) -> None:
    said: dict[str, Any] = {"do_normalize": True, "mean": [3.0], "var": [4.0]}
    plain = cost_model(tiny_tokenizer, tmp_path / "plain")
    expected = load_scorer(f"score:{plain}").score(PROMPTS, TEXTS_HERE)
    cost = load_scorer(f"score:{cost_model(tiny_tokenizer, tmp_path / 'cost', **said)}")
    assert cost.score(PROMPTS, TEXTS_HERE) == pytest.approx([x / 2 for x in expected])
    reward = cost_model(tiny_tokenizer, tmp_path / "reward", **said, score_type="reward")
    found = load_scorer(f"score:{reward}")
    assert found.score(PROMPTS, TEXTS_HERE) == pytest.approx([(x - 3) / 2 for x in expected])
    assert (found.unit, found.cut) == ("score", None)
    broken = cost_model(tiny_tokenizer, tmp_path / "odd", do_normalize=True, var="x")
    with pytest.raises(ModelError, match="says do_normalize, but not how"):
        load_scorer(f"score:{broken}")


def test_what_has_no_score_head_is_refused(tiny_llama: Path, bert: Path) -> None:
    with pytest.raises(ModelError, match="no score head with one output"):
        load_scorer(f"score:{tiny_llama}")
    with pytest.raises(SpringbackError, match="name the model"):
        load_scorer("score:")


@torch.no_grad()
def test_a_chat_model_judges_by_the_probability_of_yes(tiny_llama: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_llama)
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_llama)
    rubric = TEXTS["refusal"]
    expected = []
    for prompt, answer in zip(PROMPTS, TEXTS_HERE, strict=True):
        text = rubric.replace("{prompt}", prompt).replace("{answer}", answer)
        turns = [{"role": "user", "content": text}]
        shown = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(shown, add_special_tokens=False, return_tensors="pt")
        p = model(**ids).logits[0, -1].double().softmax(-1)
        # Byte-level: a word begins with its letter; a space before it begins both alike.
        yes, no = (
            sum(float(p[tokenizer.convert_tokens_to_ids(c)]) for c in letters)
            for letters in ("Yy", "Nn")
        )
        expected.append(yes / (yes + no))
    judge = load_scorer(f"model:{tiny_llama}=refusal")
    assert judge.score(PROMPTS, TEXTS_HERE) == pytest.approx(expected, rel=1e-4)
    alone = [judge.score([p], [t])[0] for p, t in zip(PROMPTS, TEXTS_HERE, strict=True)]
    assert judge.score(PROMPTS, TEXTS_HERE) == alone  # to the bit, whatever stands beside it
    assert (judge.unit, judge.cut, judge.asked) == ("probability", 0.5, True)
    assert judge.name == f"{tiny_llama.name}=refusal"
    with pytest.raises(SpringbackError, match=r"reads .* tokens and a question to it has"):
        judge.score(["x" * 5000], ["y"])


def test_the_rubric_is_part_of_the_identity(tiny_llama: Path, tmp_path: Path) -> None:
    identities = {load_scorer(f"model:{tiny_llama}={name}").identity for name in RUBRICS}
    assert len(identities) == len(RUBRICS)
    assert load_scorer(f"model:{tiny_llama}").identity in identities
    mine, copy = tmp_path / "mine.txt", tmp_path / "copy.txt"
    mine.write_text("Is {answer} kind?")
    copy.write_text("Is {answer} kind?")
    judge = load_scorer(f"model:{tiny_llama}={mine}")
    assert judge.name.endswith("=mine")
    assert judge.identity == load_scorer(f"model:{tiny_llama}={copy}").identity
    assert judge.identity not in identities


def test_rubrics_by_name_and_file(tmp_path: Path) -> None:
    assert tuple(TEXTS) == RUBRICS
    model, rubric = split_rubric("org/name", "spec")
    assert (model, rubric.name) == ("org/name", "harmful")
    # What stands in a prompt is not looked through for places.
    about = rubric.about("{answer}", "{prompt} \\1")
    assert about.count("{answer}") == about.count("{prompt}") == 1
    (tmp_path / "bare.txt").write_text("Is it kind?")
    for given, message in (
        ("m=none.txt", "allowed: harmful, refusal, positive, or a text file"),
        ("m=", "cannot be read"),
        (f"m={tmp_path / 'bare.txt'}", r"has no \{answer\}"),
        ("=harmful", "name the model"),
        ("", "name the model"),
    ):
        with pytest.raises(SpringbackError, match=message) as caught:
            split_rubric(given, f"model:{given}")
        assert "\n" not in str(caught.value)
