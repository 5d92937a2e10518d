"""Where results may be written, and study files that are no settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from springback.errors import SpringbackError
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.config import build, read_study


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: " + "[" * 3000, "not YAML"),
        ("seeds: " + "9" * 5000, "not YAML .*5000 digits"),
        ("model: 2026-13-45", "not YAML"),
        ("seeds: &a [1, *a]", "without aliases"),
        ("seeds: &a [" + "*a," * 5000 + "]", "without aliases"),
        (
            "seeds: [&a0 [x,x,x,x,x,x,x,x,x]"
            + "".join(f", &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9))
            + "]",
            "without aliases",
        ),
    ],
)
def test_a_study_that_is_deep_long_or_endless_is_refused_in_one_line(
    text: str, words: str, tmp_path: Path
) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(text)
    with pytest.raises(SpringbackError, match=words) as caught:
        read_study(study)
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


def test_aliases_that_stand_for_a_few_values_are_read(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text("seeds: &s [0, 1]\nattack_seeds: *s\n")
    assert read_study(study) == {"seeds": [0, 1], "attack_seeds": [0, 1]}


def test_a_long_value_is_not_repeated_whole() -> None:
    with pytest.raises(SpringbackError, match=r"seeds is .*characters") as caught:
        build(AuditSettings, {"seeds": ["x"] * 5000})
    assert len(str(caught.value)) < 1000
