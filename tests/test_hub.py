"""A hub id may have its revision behind it; only one copy of the weights is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from springback.errors import ModelError
from springback.models import hub


def test_a_revision_stands_behind_the_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "run@2").mkdir()
    assert hub.split_revision("org/name@step100") == ("org/name", "step100")
    assert hub.split_revision("org/name") == ("org/name", None)
    assert hub.split_revision("org/name", "main") == ("org/name", "main")
    assert hub.split_revision("a/run@2") == ("a/run@2", None), "a folder of that name is here"
    for name, revision in (("org/name@x", "y"), ("org/name@", None)):
        with pytest.raises(ModelError, match="one revision: org/name@revision"):
            hub.split_revision(name, revision)


def test_folders_and_models_take_it(monkeypatch: pytest.MonkeyPatch, tiny_llama: Path) -> None:
    import huggingface_hub
    from huggingface_hub.utils._paths import filter_repo_objects

    from springback.models.loading import resolve

    asked: list[tuple[str, Any]] = []

    def snapshot(name: str, revision: str | None, **patterns: Any) -> str:
        kept = filter_repo_objects(
            [
                "model.safetensors",
                "amateur/model.safetensors",
                "consolidated.safetensors",
                "original/model.safetensors",
                "pytorch_model.bin",
                "tokenizer.json",
            ],
            **patterns,
        )
        assert list(kept) == ["model.safetensors", "amateur/model.safetensors", "tokenizer.json"]
        asked.append((name, revision))
        return str(tiny_llama)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert hub.local_folder("org/name@step100") == tiny_llama
    assert resolve("org/name@step200").path == str(tiny_llama)
    assert resolve("org/name", "step300").path == str(tiny_llama)
    assert asked == [("org/name", f"step{n}00") for n in (1, 2, 3)]
