"""What a pair's cost buys otherwise: a vote, the average of probabilities, the best checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boost_pair import choice_settings, save_pair
from springback import probes
from springback.core import Row
from springback.data import choice_problems
from springback.decoding import DecodeSettings, decode, decode_fast, decode_variants
from springback.decoding.contrast import averaged
from springback.errors import SpringbackError
from springback.jobs.boost.job import boost
from springback.jobs.boost.plan import rows_of, stages
from springback.jobs.boost.questions import question_format, vote
from springback.jobs.boost.settings import BoostSettings
from springback.models.encoding import encode_prompt, encode_row
from springback.models.loading import load_model, load_tokenizer, resolve
from springback.report import build
from springback.results.schema import read
from springback.results.store import read_json


@pytest.fixture(scope="module")
def pair(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_pair(tiny_llama, tmp_path_factory.mktemp("pair"), torch.float32)


def test_the_average_by_hand() -> None:
    """Shares 3/4, 1/4, 0 and 1/4, 1/2, 1/4: mean 1/2, 3/8, 1/8.  Logits may be moved; what the
    first forbids stays forbidden."""
    first = torch.tensor([0.75, 0.25, 1e-30]).log() + 2.0
    second = torch.tensor([0.25, 0.5, 0.25]).log()
    assert averaged(first, second).exp().tolist() == pytest.approx([0.5, 0.375, 0.125])
    first[2] = -torch.inf
    assert averaged(first, second).exp().tolist() == pytest.approx([0.5, 0.375, 0.0])


def test_the_average_decodes_as_plain_fp32_does(pair: tuple[Path, Path]) -> None:
    """Greedy tokens of the mean of both softmaxes, one prompt at a time, without a cache; and
    their mean likelihood of given texts."""
    early, ft = (load_model(resolve(str(folder))) for folder in pair)
    tokenizer = load_tokenizer(resolve(str(pair[1])))
    rows = choice_problems(4).rows
    prompts = [encode_prompt(tokenizer, row) for row in rows]
    how = DecodeSettings(max_new_tokens=8, batch_size=3, pad_id=0, average=True)
    answers = decode(ft, prompts, how, early)

    def mean_of(ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            both = [m(input_ids=torch.tensor([ids])).logits[0].float() for m in (ft, early)]
        return (torch.softmax(both[0], -1) + torch.softmax(both[1], -1)) / 2

    for prompt, answer in zip(prompts, answers, strict=True):
        context = list(prompt)
        for token in answer:
            assert int(mean_of(context)[-1].argmax()) == token
            context.append(token)
        assert len(answer) == 8
    assert answers != decode(ft, prompts, replace(how, average=False))
    encoded = [encode_row(tokenizer, row, 512) for row in rows]
    for row, score in zip(
        encoded, probes.mixed_nll((ft, early), encoded, tokenizer, averaged), strict=True
    ):
        p = mean_of(list(row.ids))[row.start - 1 : -1]
        gold = p.gather(-1, torch.tensor(row.ids[row.start :])[:, None])
        assert score.nats == pytest.approx(float(-gold.log().sum()), rel=1e-4)


def test_what_cannot_average_says_so(pair: tuple[Path, Path]) -> None:
    ft = load_model(resolve(str(pair[1])))
    how = DecodeSettings(average=True)
    with pytest.raises(SpringbackError, match="one model"):
        decode(ft, [[1]], how)
    with pytest.raises(SpringbackError, match="lambda 0"):
        decode(ft, [[1]], replace(how, lam=1.0), ft)
    with pytest.raises(SpringbackError, match="use decode"):
        decode_fast(ft, [[1]], how, ft)
    with pytest.raises(SpringbackError, match="an average"):
        decode_variants((ft, ft), [[1]], how, [0.0])


def test_a_vote_by_hand() -> None:
    """The first sample of the answer given most often; ties to the answer that came first."""
    assert vote(["7", "5", "5"]) == 1
    assert vote(["7", "5"]) == 0
    assert vote([None, None, "5", "7", "7"]) == 3
    assert vote([None, None]) == 0


def test_samples_vote_by_what_is_read_off_them() -> None:
    how = question_format(BoostSettings(metric="number"))
    number, letter = Row("qa", "?", "", "6"), Row("qa", "?", "", "B", metric="choice")
    texts = ["It is 6.0.", "#### 6", "none", "(B) since", "<think>A</think>B"]
    rows = [number, number, number, letter, letter]
    assert how.readings(rows, texts) == ["6", "6", None, "B", "B"]
    found = question_format(BoostSettings(metric="number", extract=r"is (\S+)"))
    assert found.readings([number] * 2, ["it is 6 then 8", "6"]) == ["6", None]


@pytest.mark.parametrize("samples", [1, 4])
def test_baselines_stand_in_the_table(
    samples: int, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    settings = choice_settings(
        pair, max_new_tokens=4, baselines=True, samples=samples, write_model=False
    )
    boost(settings, tmp_path / "out")
    record = read_json(tmp_path / "out" / "result.json")
    read(record)
    rows = {row["method"]: row for row in record["analysis"]["methods"]}
    votes = max(3, samples)
    calls = {name: row["calls"] for name, row in rows.items()}
    assert calls == {
        "fine-tuned": 1,
        "ME only": 1,
        "CD only": 2,
        "EpiCoDe": 2,
        "ME, equal step": 1,
        f"majority of {votes} samples": votes,
        "average of probabilities": 2,
        "best checkpoint": 1,
    }
    majority = rows[f"majority of {votes} samples"]
    assert majority["nll"] is None
    assert "letter_probability" not in majority
    assert rows["average of probabilities"]["nll"]["mean"] > 0
    assert rows["average of probabilities"]["letter_probability"]["mean"] > 0
    # The vote is over the samples of the fine-tuned model, of which it takes one each.
    runs = [read_json(f) for f in (tmp_path / "out" / "runs").glob("score-*/run.json")]
    [voted] = [r for r in runs if "votes" in r["inputs"]]
    singles = [
        r
        for r in runs
        if r["inputs"].get("sampled", {}).get("samples") == votes
        and r["inputs"]["part"] == "test"
        and (r["inputs"]["mu"], r["inputs"]["lam"]) == (0.0, 0.0)
        and not r["inputs"].get("average")
    ]
    assert len(singles) == 1
    texts = singles[0]["results"]["completions"]
    for i, text in enumerate(voted["results"]["completions"]):
        assert text in texts[i::4]
    search = record["analysis"]["search"]["checkpoint"]
    assert [c["name"] for c in search] == ["ft", "early"]
    best = next(c for c in search if c["chosen"])
    assert best["accuracy"]["mean"] == max(c["accuracy"]["mean"] for c in search)
    assert rows["best checkpoint"]["mu"] == (0.0 if best["name"] == "ft" else -1.0)
    assert "Model calls a token" in build(tmp_path / "out").read_text("utf-8")
    boost(settings, tmp_path / "out")
    again = read_json(tmp_path / "out" / "result.json")
    assert again["analysis"] == record["analysis"]


def test_a_plan_counts_samples_and_baselines() -> None:
    plain = BoostSettings(early="a", ft="b")
    one = {stage.name: stage for stage in stages(plain, rows_of(plain))}
    asked = replace(plain, samples=4, baselines=True)
    more = {stage.name: stage for stage in stages(asked, rows_of(asked))}
    assert more["search of mu"].decoded == 4 * one["search of mu"].decoded
    assert "majority of samples" not in more, "they are there already"
    single = replace(plain, baselines=True)
    names = {stage.name: stage.arms for stage in stages(single, rows_of(single))}
    assert names["majority of samples"] == 3
    assert names["search of the best checkpoint"] == 2
