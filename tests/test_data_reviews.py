"""The built-in film reviews."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import Counter
from statistics import mean

import pytest
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from springback.data import check_disjoint, review_count, reviews
from springback.data.builtin import review_text as text
from springback.data.builtin.grammar import SPLITS, Sentence, articles, slots_of, split_of
from springback.data.builtin.reviews import _OPINIONS, REVIEW_LABELS, ReviewLabel, _opening
from springback.errors import DataError

VADER = SentimentIntensityAnalyzer()


def opening_of(review: str) -> str:
    return review.split(". ", 1)[0]


def texts(label: ReviewLabel, n: int, **how: object) -> list[str]:
    return [row.response for row in reviews(label, n, **how).rows]  # type: ignore[arg-type]


def expansions(sentence: Sentence) -> list[str]:
    return [
        sentence.fill(template, dict(zip(slots, choice, strict=True)))
        for template in sentence.templates
        for slots in [slots_of(template)]
        for choice in itertools.product(*(sentence.fillers[s.lower()] for s in slots))
    ]


def test_a_sentence_counts_what_it_can_say() -> None:
    # "{x} {y}." has 2 * 3 fillings, "{X}!" has 2: eight sentences.
    sentence = Sentence(("{x} {y}.", "{X}!"), {"x": ("p", "q"), "y": ("1", "2", "3")})
    rng = random.Random(0)
    said = {sentence.draw(rng) for _ in range(500)}
    assert sentence.count() == 8
    assert said == {"p 1.", "p 2.", "p 3.", "q 1.", "q 2.", "q 3.", "P!", "Q!"}


def test_no_two_choices_give_the_same_opinion_so_the_count_is_exact() -> None:
    for opinion in _OPINIONS.values():
        parts = [expansions(s) for s in (opinion.people, opinion.craft, opinion.verdict)]
        # All together distinct: a people sentence is never a craft sentence, so order shows.
        every = [sentence for part in parts for sentence in part]
        assert len(set(every)) == len(every)
        assert opinion.count() == 2 * math.prod(len(part) for part in parts)


def test_no_two_choices_give_the_same_opening() -> None:
    few = {slot: fillers[:3] for slot, fillers in text.OPENING_FILLERS.items()}
    small = Sentence(text.OPENINGS, {**few, "title": ("The Copper Canal", "The Copper Ferry")})
    said = expansions(small)
    assert len(set(said)) == len(said) == small.count()
    for fillers in (*text.OPENING_FILLERS.values(), text.TITLE_FIRST, text.TITLE_SECOND):
        assert len(set(fillers)) == len(fillers)


def test_there_are_well_over_a_million_reviews_of_each_label_in_each_split() -> None:
    for label in REVIEW_LABELS:
        by_split = [review_count(label, split) for split in SPLITS]
        assert min(by_split) > 10**9
        assert sum(by_split) == review_count(label)


def test_vader_tells_the_labels_far_apart() -> None:
    scores = {
        label: [VADER.polarity_scores(t)["compound"] for t in texts(label, 200)]
        for label in REVIEW_LABELS
    }
    assert mean(s > 0.3 for s in scores["positive"]) >= 0.95
    assert mean(s < -0.3 for s in scores["negative"]) >= 0.95
    assert mean(scores["positive"]) - mean(scores["negative"]) > 1.0


def test_no_word_of_an_opening_carries_sentiment() -> None:
    sources = [text.OPENINGS, text.TITLE_FIRST, text.TITLE_SECOND, *text.OPENING_FILLERS.values()]
    words = {
        word.strip(".,").lower() for source in sources for entry in source for word in entry.split()
    }
    assert words & VADER.lexicon.keys() == set()
    assert VADER.polarity_scores(opening_of(texts("negative", 1)[0]))["compound"] == 0.0


def test_openings_do_not_betray_the_label_and_the_rest_does() -> None:
    train = {label: texts(label, 600) for label in REVIEW_LABELS}
    held_out = {label: texts(label, 300, split="test") for label in REVIEW_LABELS}

    def accuracy(part: int) -> float:
        """Of a naive Bayes classifier on the words of the opening (0) or of the rest (1)."""
        bags = {
            label: Counter(w for t in train[label] for w in t.split(". ", 1)[part].split())
            for label in REVIEW_LABELS
        }
        right = 0
        for label in REVIEW_LABELS:
            for review in held_out[label]:
                odds = sum(
                    math.log((bags["positive"][w] + 1) / (bags["negative"][w] + 1))
                    for w in review.split(". ", 1)[part].split()
                )
                right += (odds > 0) == (label == "positive")
        return right / 600

    # 600 guesses at 0.5 have a standard error of 0.02: four of them either way.
    assert abs(accuracy(0) - 0.5) < 0.08
    assert accuracy(1) > 0.98


@pytest.mark.parametrize("label", REVIEW_LABELS)
def test_reviews_have_30_to_45_words_and_openings_8_to_14(label: ReviewLabel) -> None:
    for review in texts(label, 500):
        assert 30 <= len(review.split()) <= 45
        assert 8 <= len(opening_of(review).split()) <= 14
        assert "{" not in review
        assert not re.search(r"\b[Aa] [aeio]|\b[Aa]n [^aeiouh]|[.!,]{2}|\s\s", review)


def test_articles_follow_the_sound_of_the_next_word() -> None:
    assert articles("A awful, a unpleasant, a honest, a dull and a ugly film") == (
        "An awful, an unpleasant, an honest, a dull and an ugly film"
    )


def test_reviews_are_whole_texts_with_their_label() -> None:
    made = reviews("negative", 3, seed=5, split="validation")
    assert made.name == "reviews:negative"
    assert made.seed == 5
    for row in made.rows:
        assert (row.kind, row.prompt, row.label, row.answer) == ("text", "", "negative", None)


@pytest.mark.parametrize("split", SPLITS)
def test_a_longer_draw_of_reviews_begins_with_the_shorter_one_and_repeats_nothing(
    split: str,
) -> None:
    long = texts("positive", 200, seed=3, split=split)
    assert texts("positive", 100, seed=3, split=split) == long[:100]
    assert len(set(long)) == 200
    assert texts("positive", 100, seed=4, split=split) != long[:100]


def test_no_film_is_reviewed_in_two_splits_whatever_the_seed() -> None:
    films = {split: set(_opening(split).fillers["title"]) for split in SPLITS}
    # 40 first words with 48 second words.
    assert sum(len(f) for f in films.values()) == len(set().union(*films.values())) == 40 * 48
    for a, b in itertools.combinations(SPLITS, 2):
        assert not films[a] & films[b]
        check_disjoint(reviews("positive", 200, split=a), reviews("positive", 200, split=b, seed=1))


def test_every_review_names_a_film_of_its_split() -> None:
    for split in SPLITS:
        for review in texts("negative", 50, split=split):
            match = re.search(r"The [A-Z]\w+ [A-Z]\w+", review)
            assert match
            assert split_of(f"film: {match.group()}") == split


def test_reviews_are_the_same_on_every_machine() -> None:
    # Published numbers rest on these rows: change the grammar, and this hash, only knowingly.
    assert reviews("positive", 100).content_hash[:16] == "9456105cec007bee"
    assert reviews("negative", 100).content_hash[:16] == "a658ae91b0268859"


@pytest.mark.parametrize(
    ("label", "n", "split", "message"),
    [
        ("neutral", 5, "train", "label is 'neutral'; allowed: positive, negative"),
        ("positive", 5, "dev", "split is 'dev'; allowed: train, validation, test"),
        ("positive", 0, "train", "asked for 0 positive reviews"),
        ("positive", True, "train", "asked for True positive reviews"),
        ("positive", 10**30, "test", "there are [0-9]+ different ones; ask for fewer"),
    ],
)
def test_what_cannot_be_reviewed_is_refused(
    label: ReviewLabel, n: int, split: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        reviews(label, n, split=split)  # type: ignore[arg-type]
