"""Probes against a plain reference: one text at a time, whole logits, log_softmax."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from springback import probes
from springback.core import Row
from springback.models.encoding import Encoded, encode_rows
from springback.models.loading import Model, Tokenizer, load_model, load_tokenizer, resolve
from test_head_loss import capped

TEXTS = ["the thing", "a heron in the 1970s", "ing", "the other heron sings, and the thing hears"]


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Tokenizer:
    return load_tokenizer(resolve(tiny_llama))


@pytest.fixture(scope="module")
def models(tiny_llama: Path) -> tuple[Model, Model]:
    start, other = load_model(resolve(tiny_llama)), load_model(resolve(tiny_llama))
    torch.manual_seed(4)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.01 * torch.randn_like(p))
    return start, other


@pytest.fixture(scope="module")
def rows(tokenizer: Tokenizer) -> list[Encoded]:
    texts = [Row("text", "", t) for t in TEXTS]
    asked = [Row("pair", "a heron?", t) for t in TEXTS]
    return encode_rows(tokenizer, [*texts, *asked], 64)


@torch.no_grad()
def log_probabilities(model: Model, row: Encoded) -> torch.Tensor:
    """(counted, vocabulary): the plain way."""
    logits = model(input_ids=torch.tensor([row.ids])).logits[0].double()
    found: torch.Tensor = logits.log_softmax(-1)[row.start - 1 : -1]
    return found


def plain_nll(model: Model, row: Encoded) -> float:
    logp = log_probabilities(model, row)
    return -float(logp[range(row.counted), row.ids[row.start :]].sum())


@pytest.mark.parametrize("batch_tokens", [1, 60, 10_000])
def test_nll_equals_the_plain_way(
    models: tuple[Model, Model], rows: list[Encoded], tokenizer: Tokenizer, batch_tokens: int
) -> None:
    precision = probes.Precision("float32", batch_tokens)
    found = probes.nll(models[0], rows, tokenizer, precision)
    assert [f.nats for f in found] == pytest.approx(
        [plain_nll(models[0], r) for r in rows], rel=1e-5
    )
    assert [f.tokens for f in found] == [r.counted for r in rows]


def test_nll_equals_the_training_loss_of_transformers(
    models: tuple[Model, Model], rows: list[Encoded], tokenizer: Tokenizer
) -> None:
    row = rows[1]
    ids = torch.tensor([row.ids])
    with torch.no_grad():
        loss = float(models[0](input_ids=ids, labels=ids).loss)
    assert probes.nll(models[0], [row], tokenizer)[0].per_token == pytest.approx(loss, rel=1e-5)


def test_pair_nll_equals_the_formula(
    models: tuple[Model, Model], rows: list[Encoded], tokenizer: Tokenizer
) -> None:
    found = probes.pair_nll(*models, rows, tokenizer, [0.0, 0.5, 2.0])
    for lam, scores in found.items():
        for score, row in zip(scores, rows, strict=True):
            ep, ft = (log_probabilities(m, row) for m in models)
            logp = (ep + lam * (ep - ft)).log_softmax(-1)
            expected = -float(logp[range(row.counted), row.ids[row.start :]].sum())
            assert score.nats == pytest.approx(expected, rel=1e-4)


def tokens_read(model: Model) -> list[int]:
    """Grows at every pass of the layers below the output layer, by the number of its tokens."""
    read: list[int] = []
    layers: Any = model.get_decoder()  # type: ignore[no-untyped-call]
    layers.register_forward_hook(
        lambda _m, _a, kwargs, _o: read.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    return read


def test_known_states_give_the_same_nll_without_a_second_pass(
    models: tuple[Model, Model], rows: list[Encoded], tokenizer: Tokenizer
) -> None:
    """Bit for bit, alone and in a pair; as far as there is room for them."""
    precision = probes.Precision("float32", 60)
    strong, weak = copy.deepcopy(models[0]), copy.deepcopy(models[1])
    plain = probes.nll(strong, rows, tokenizer, precision)
    pair = probes.pair_nll(strong, weak, rows, tokenizer, [0.5], precision)
    room = probes.MemoryBudget(1 << 20)
    states = probes.LastStates(room), probes.LastStates(room)
    runs = tokens_read(strong), tokens_read(weak)
    assert probes.nll(strong, rows, tokenizer, precision, states[0]) == plain
    batches = len(runs[0])
    assert batches > 1
    for _ in range(2):
        again = probes.pair_nll(strong, weak, rows, tokenizer, [0.5], precision, states=states)
        assert again == pair
    assert [len(r) for r in runs] == [batches, batches]
    used = (1 << 20) - room.left
    narrow = probes.LastStates(probes.MemoryBudget(used // 4))
    for _ in range(2):
        assert probes.nll(strong, rows, tokenizer, precision, narrow) == plain
    assert batches < len(runs[0]) - batches < 2 * batches, "only some were kept"
    assert narrow.room.left >= 0


def test_what_all_rows_begin_with_is_read_once(
    models: tuple[Model, Model], tokenizer: Tokenizer
) -> None:
    """With states; not where one row is bare, and has no prompt."""
    strong = copy.deepcopy(models[0])
    asked = [Row("pair", f"the heron sings, and {t}", t) for t in TEXTS]
    rows = encode_rows(tokenizer, asked, 64)
    precision = probes.Precision("float32", 100)
    plain = [s.nats for s in probes.nll(strong, rows, tokenizer, precision)]
    read = tokens_read(strong)
    probes.nll(strong, rows, tokenizer, precision)
    alone, batches = sum(read), len(read)
    assert batches > 1
    read.clear()
    states = probes.LastStates(probes.MemoryBudget(1 << 20))
    again = probes.nll(strong, rows, tokenizer, precision, states)
    assert [s.nats for s in again] == pytest.approx(plain, rel=1e-5)
    begin = read[0]
    assert begin > 10
    assert sum(read) == alone - (len(rows) - 1) * begin
    read.clear()
    assert probes.nll(strong, rows, tokenizer, precision, states) == again
    assert read == []
    bare = [*rows, *encode_rows(tokenizer, [Row("text", "", TEXTS[3])], 64)]
    states = probes.LastStates(probes.MemoryBudget(1 << 20))
    expected = probes.nll(strong, bare, tokenizer, precision)
    assert probes.nll(strong, bare, tokenizer, precision, states) == expected


def test_a_model_that_caps_its_logits_is_run_again(
    rows: list[Encoded], tokenizer: Tokenizer
) -> None:
    """The output layer alone would give other numbers."""
    model = capped()
    plain = probes.nll(model, rows, tokenizer)
    states, runs = probes.LastStates(probes.MemoryBudget(1 << 20)), tokens_read(model)
    for _ in range(2):
        assert probes.nll(model, rows, tokenizer, None, states) == plain
    assert len(runs) == 2
    assert states.room.left == 1 << 20


def test_masked_nll_leaves_implausible_tokens_out_and_counts_them(
    models: tuple[Model, Model], rows: list[Encoded], tokenizer: Tokenizer
) -> None:
    """A token with p_ep < alpha max p_ep is masked; the rest is normalised over the others."""
    found = probes.pair_nll_masked(models, rows, tokenizer, lam=1.5, alpha=0.02)
    for score, row in zip(found, rows, strict=True):
        ep, ft = (log_probabilities(m, row) for m in models)
        open_ = ep.exp() >= 0.02 * ep.exp().amax(-1, keepdim=True)
        odds = (ep + 1.5 * (ep - ft)).exp() * open_
        gold = range(row.counted), row.ids[row.start :]
        kept = open_[gold]
        expected = -float((odds[gold] / odds.sum(-1))[kept].log().sum())
        assert score.nats == pytest.approx(expected, rel=1e-4)
        assert score.masked == int((~kept).sum())
        assert score.masked_share == score.masked / row.counted
    assert 0 < sum(s.masked for s in found) < sum(r.counted for r in rows)


@pytest.mark.parametrize("keep_bytes", [0, 10**9])
def test_kl_is_exact_over_the_vocabulary(
    models: tuple[Model, Model], rows: list[Encoded], tokenizer: Tokenizer, keep_bytes: int
) -> None:
    start, other = models
    distribution = probes.StartDistribution(start, rows, tokenizer, keep_bytes=keep_bytes)
    for found, row in zip(distribution.kl(other), rows, strict=True):
        p, q = log_probabilities(start, row), log_probabilities(other, row)
        expected = float((p.exp() * (p - q)).sum(-1).mean())
        assert expected > 1e-3
        assert found == pytest.approx(expected, rel=1e-3)
    assert distribution.kl(start) == pytest.approx([0.0] * len(rows), abs=1e-6)


@pytest.mark.parametrize("keep_bytes", [0, 10**9])
def test_the_noise_floor_of_kl_sees_what_hangs_on_the_batch(
    tiny_llama: Path, rows: list[Encoded], tokenizer: Tokenizer, keep_bytes: int
) -> None:
    """A model whose first logit grows with the rows beside it, a thousand times any rounding."""
    model = load_model(resolve(tiny_llama))
    exact = probes.StartDistribution(model, rows, tokenizer, keep_bytes=keep_bytes)
    assert exact.kl_to_itself(1) == pytest.approx([0.0] * len(rows), abs=1e-6)

    def uneven(_: object, __: object, out: torch.Tensor) -> torch.Tensor:
        more = torch.zeros_like(out)
        more[..., 0] = 0.5 * len(out)
        return out + more

    head: Any = model
    head.get_output_embeddings().register_forward_hook(uneven)
    together = probes.StartDistribution(model, rows, tokenizer, keep_bytes=keep_bytes)
    assert together.kl(model) == pytest.approx([0.0] * len(rows), abs=1e-6)
    found = together.kl_to_itself(1)
    beside = {i: len(batch.index) for batch in together.batches for i in batch.index}
    assert max(beside.values()) > 1
    for i, row in enumerate(rows):
        q = log_probabilities(model, row)
        p = q.clone()
        p[:, 0] += 0.5 * (beside[i] - 1)
        p = p.log_softmax(-1)
        assert found[i] == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), abs=1e-5)


def test_margin_is_unwanted_minus_wanted_a_token() -> None:
    """Wanted: 4 nats on 2 tokens = 2; unwanted: 9 on 3 = 3 and 5 on 1 = 5, mean 4; margin 2."""
    wanted = [probes.TextNLL(4.0, 2, 9)]
    unwanted = [probes.TextNLL(9.0, 3, 9), probes.TextNLL(5.0, 1, 9)]
    assert probes.margin(wanted, unwanted) == pytest.approx(2.0)


def test_bits_per_byte_counts_bytes_of_the_text() -> None:
    """8 ln 2 nats are 8 bits, on 4 + 4 bytes: 1 bit a byte."""
    scores = [probes.TextNLL(6 * math.log(2), 3, 4), probes.TextNLL(2 * math.log(2), 5, 4)]
    assert probes.bits_per_byte(scores) == pytest.approx(1.0)


def test_bytes_are_those_of_the_scored_text(tokenizer: Tokenizer) -> None:
    """All of 'the thing é' but its first token 't' (no merge begins a text): 11 - 1 + 1 for é."""
    (row,) = encode_rows(tokenizer, [Row("text", "", "the thing é")], 64)
    first = tokenizer.decode([row.ids[0]])
    assert row.text_bytes == len("the thing é".encode()) - len(first.encode())


def test_sentiment_tells_praise_from_blame() -> None:
    praise, blame = probes.sentiment(["A wonderful, great film.", "A horrible, awful film."])
    assert praise > 0.5 > -0.5 > blame
