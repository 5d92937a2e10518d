"""What the fuzzers found, one kind each: damaged files that once ended in a traceback."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from findings_fixture import full_audit
from springback.core import Checkpoint, Run
from springback.errors import ModelError, SpringbackError, SpringbackWarning, StoreError
from springback.models.loading import load_tokenizer, resolve
from springback.results.cards import read_cards
from springback.results.store import Store
from springback.weights import tensor_names
from springback.weights.adapters.reading import open_adapter
from weights_files import plain, write_file, write_model

RUN = Run.of("score", rows="abc")
PARTS = {"A": (2, 4), "B": (4, 2)}


@pytest.mark.parametrize("saved", [1e308, "lm_head", [5], {"lm_head": 1}])
def test_modules_to_save_that_are_no_list_of_names_are_refused(saved: Any, tmp_path: Path) -> None:
    tensors = {
        f"base_model.model.layers.0.q_proj.lora_{part}.weight": plain(np.ones(shape, np.float32))
        for part, shape in PARTS.items()
    }
    write_file(tmp_path / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "modules_to_save": saved}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"modules_to_save is .* not a list of names"):
        open_adapter(tmp_path)


def test_a_shard_whose_name_no_file_can_have_is_missing(tmp_path: Path) -> None:
    one, two = ({name: plain(np.ones(2, np.float32))} for name in "ab")
    write_model(tmp_path, one, two)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "\\ud800.safetensors", "b": "x.safetensors"}}')
    with pytest.raises(ModelError, match="is missing"):
        tensor_names(tmp_path)


@pytest.mark.parametrize("value", ["0.25", 0.26, None, [0.25]])
def test_a_recorded_run_with_other_values_is_made_again(value: Any, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(RUN, {"loss": 0.25, "marks": [[8, 1.5]]})
    assert Store(tmp_path).results(RUN) == {"loss": 0.25, "marks": [[8, 1.5]]}
    path = tmp_path / "runs" / RUN.name / "run.json"
    record = json.loads(path.read_text())
    record["results"]["loss"] = value
    path.write_text(json.dumps(record))
    with pytest.warns(SpringbackWarning, match="is damaged"):
        assert Store(tmp_path).results(RUN) is None


def test_a_run_of_before_there_were_hashes_still_counts(tmp_path: Path) -> None:
    Store(tmp_path).commit(RUN, {"loss": 0.25})
    path = tmp_path / "runs" / RUN.name / "run.json"
    record = json.loads(path.read_text())
    del record["results_hash"]
    path.write_text(json.dumps(record))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Store(tmp_path).results(RUN) == {"loss": 0.25}


def test_results_that_hold_half_characters_are_read_back(tmp_path: Path) -> None:
    Store(tmp_path).commit(RUN, {"path": "a\udc80", "nan": float("nan")})
    assert Store(tmp_path).results(RUN) == {"path": "a\udc80", "nan": None}


@pytest.mark.parametrize("longest", ["512", {}, -1, 0, float("inf"), True, None])
def test_a_tokenizer_whose_longest_input_is_no_number_is_refused(
    longest: Any, tiny_tokenizer: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_tokenizer, tmp_path / "model")
    path = tmp_path / "model/tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "model_max_length": longest}))
    if longest is None:  # as much as there is: a large number
        assert load_tokenizer(Checkpoint(str(path.parent))).model_max_length > 1e9
        return
    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(Checkpoint(str(path.parent)))


@pytest.mark.parametrize("tag", [None, "x", [8], float("nan")])
def test_comparing_passes_over_a_value_whose_dose_is_no_number(tag: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        result = full_audit()
        record = {"probe": "margin", "value": 1.0}
        tags = {"phase": "align", "seed": 0, "n_pos": tag, "n_neg": 0}
        result["measurements"] = [{**record, "tags": tags}]
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(result))
    assert read_cards([tmp_path / "a", tmp_path / "b"]).to_markdown()


@pytest.mark.parametrize("content", ["[]", "5", '[{"kind": "audit"}]', '{"kind": "audit"}'])
def test_comparing_what_is_no_result_is_refused(content: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(content)
    with pytest.raises(StoreError, match="is not a springback result"):
        read_cards([tmp_path / "a", tmp_path / "b"])


def test_a_value_of_another_type_is_named_where_results_are_compared(tmp_path: Path) -> None:
    for name in ("a", "b"):
        result = full_audit()
        result["analysis"]["rebound"]["doses"] = "many"
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(result))
    with pytest.raises(SpringbackError, match=r"analysis\.rebound\.doses"):
        read_cards([tmp_path / "a", tmp_path / "b"])


@pytest.mark.parametrize("layers", [1001, 10**7, 10**30])
@pytest.mark.parametrize("place", ["num_hidden_layers", "text_config"])
def test_a_config_of_endless_layers_is_refused_at_once(
    layers: int, place: str, tiny_llama: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_llama, tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    part = config if place == "num_hidden_layers" else config.setdefault("text_config", {})
    part["num_hidden_layers"] = layers
    file.write_text(json.dumps(config))
    with pytest.raises(ModelError, match="allowed: up to 1000"):
        resolve(tmp_path / "model")
