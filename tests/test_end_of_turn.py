"""Where a turn ends: one set of tokens for everything that decodes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import springback
from finetune_runs import recipe
from springback import probes
from springback.core import Checkpoint, Row
from springback.inference import load
from springback.integrations.server.protocol import ChatRequest, decode_settings
from springback.integrations.server.settings import ServeSettings
from springback.integrations.vllm import launch
from springback.integrations.vllm.end_tokens import generation_config
from springback.integrations.vllm.folder import Folder, open_folder
from springback.jobs.audit import rebound, resistance
from springback.jobs.audit.checks import check_settings as check_audit
from springback.jobs.audit.rows import PromptFilter
from springback.jobs.audit.rows import load_data as load_rows
from springback.jobs.audit.settings import AuditSettings
from springback.jobs.audit.study import Study
from springback.jobs.boost.checks import check_settings, load_data
from springback.jobs.boost.job import Arm, Boost, boost
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.papers.epicode.seed import plan
from springback.models.encoding import listed_stops, stop_ids
from springback.models.loading import load_model, load_tokenizer, resolve
from springback.probes import SampleSettings
from springback.progress import Silent
from springback.results.store import Store, read_json
from springback.training import Examples, Prompt, finetune
from turns_fixture import END, EOS, rename_ends, talking
from weights_adapters import save_adapter

CHAT, TEXT = Row("chat", "", ""), Row("text", "", "")


@pytest.fixture(scope="module")
def model(tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking(tmp_path_factory.mktemp("talking"), tiny_tokenizer)


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Any:
    return load_tokenizer(Checkpoint(str(model)))


def configs(generation: Any, own: Any = None, text: Any = None) -> Any:
    """A model's configs with these end tokens; ``text``: of a text model's config inside."""
    inner = SimpleNamespace(eos_token_id=text, vocab_size=300)
    config = SimpleNamespace(eos_token_id=own, get_text_config=lambda: inner)
    return SimpleNamespace(
        config=config, generation_config=SimpleNamespace(eos_token_id=generation)
    )


@pytest.mark.parametrize(
    ("listed", "ends"),
    [
        (configs([EOS, 7, 9]), (2, 7, 9)),
        (configs(9), (2, 9)),
        (configs(EOS), (2,)),
        # The generation config outranks the config; without one there, both configs count.
        (configs(9, own=11), (2, 9)),
        (configs(None, own=11), (2, 11)),
        (configs(None, own=[11, 12]), (2, 11, 12)),
        (configs([], text=13), (2, 13)),
        (configs(None, own=11, text=[13]), (2, 11, 13)),
        (configs(None), (2,)),
        # What no logit belongs to ends nothing: -1 for none, 300 beyond the vocabulary.
        (configs([-1, 300, 299]), (2, 299)),
    ],
)
def test_a_turn_ends_at_every_token_that_anything_names(
    tokenizer: Any, listed: Any, ends: tuple[int, ...]
) -> None:
    assert stop_ids(tokenizer, CHAT, listed) == ends
    assert stop_ids(tokenizer, TEXT, listed) == ends


def test_the_template_names_one_too(tokenizer: Any) -> None:
    """Its end of turn is <|im_end|>, 2, whatever the tokenizer's end token; of chats alone."""
    tokenizer = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    tokenizer.eos_token = "<|endoftext|>"
    assert stop_ids(tokenizer, CHAT, configs(9)) == (0, 2, 9)
    assert stop_ids(tokenizer, TEXT, configs(9)) == (0, 9)


def test_only_what_the_tokenizer_does_not_name_enters_a_run(tokenizer: Any) -> None:
    assert listed_stops(tokenizer, CHAT, configs(EOS)) == {}
    assert listed_stops(tokenizer, CHAT, configs([EOS, 300])) == {}
    assert listed_stops(tokenizer, CHAT, configs([7, EOS])) == {"stop_ids": [2, 7]}


def ways_to_name() -> list[tuple[Any, Any]]:
    """Of generation_config.json (None: no file, (): nothing in it) and of config.json."""
    return [((EOS, END), EOS), (END, EOS), (None, (EOS, END)), (None, END), ((), (EOS, END))]


@pytest.mark.parametrize(("listed", "own"), ways_to_name())
def test_however_it_is_named_the_model_stops(
    tiny_tokenizer: Path, tmp_path: Path, listed: Any, own: Any
) -> None:
    folder = talking(tmp_path / "m", tiny_tokenizer)
    rename_ends(folder, listed, own)
    loaded = load(folder)
    assert springback.generate(loaded, ["3 + 4?"], max_new_tokens=8) == ["7"]
    request = ChatRequest.model_validate({"messages": [{"role": "user", "content": "3 + 4?"}]})
    rows = request.prompts(loaded)
    assert decode_settings(request, rows, loaded, ServeSettings()).stop_ids == (END, EOS)
    # What is saved beside trained or merged weights lists them too.
    loaded.expert.generation_config.save_pretrained(tmp_path / "again")
    again = read_json(tmp_path / "again" / "generation_config.json")["eos_token_id"]
    assert END in (again if isinstance(again, list) else [again])


def test_samples_of_a_probe_end_there(model: Path, tokenizer: Any) -> None:
    """The prompt's last token is a line break; its continuation "7" and then the end of turn."""
    loaded = load_model(Checkpoint(str(model)))
    prompts = [tokenizer("a\n")["input_ids"], tokenizer("the\n")["input_ids"]]
    for kind in ("text", "chat"):
        how = SampleSettings(new_tokens=6, temperature=0.05, kind=kind)
        found = probes.sample(loaded, tokenizer, prompts, how)
        assert [tokenizer.decode(ids) for ids in found] == ["7", "7"]
        found = probes.sample(loaded, tokenizer, prompts, replace(how, exact_length=True))
        assert [len(ids) for ids in found] == [6, 6]
        assert not {END, EOS} & {i for ids in found for i in ids}


def answers(folder: Path) -> str:
    """Rows whose answer is 7, in two files' worth."""
    rows = [{"question": f"{a} + {7 - a}?", "answer": "7"} for a in range(8)]
    folder.mkdir(exist_ok=True)
    for name, part in (("v", rows[:4]), ("t", rows[4:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in part))
    return str(folder)


def pair_settings(tiny_tokenizer: Path, root: Path, ends: Any = (EOS, END)) -> BoostSettings:
    data = answers(root)
    return BoostSettings(
        early=str(talking(root / "early", tiny_tokenizer, ends=ends)),
        ft=str(talking(root / "ft", tiny_tokenizer, sure=1.5, ends=ends)),
        validation=f"{data}/v.jsonl",
        test=f"{data}/t.jsonl",
        mu=(0.5,),
        lam=(0.5,),
        lam_cd=(0.5,),
        positive=True,
        max_new_tokens=6,
        precheck=False,
    )


def test_a_boost_grades_the_turn_alone_and_its_folder_ends_there(
    tiny_tokenizer: Path, tmp_path: Path
) -> None:
    """All four answers are "7": run on, they would be read as 9, and none would be right."""
    settings = pair_settings(tiny_tokenizer, tmp_path / "in")
    data = boost(settings, tmp_path / "out").data
    accuracy = [row["accuracy"]["mean"] for row in data["analysis"]["methods"]]
    assert accuracy == [1.0, 1.0, 1.0, 1.0, 1.0]
    folder = tmp_path / "out" / "model"
    assert springback.generate(folder, ["3 + 4?"], max_new_tokens=8) == ["7"]
    plain: Any = AutoModelForCausalLM.from_pretrained(folder)
    text = "<|im_start|>user\n3 + 4?<|im_end|>\n<|im_start|>assistant\n"
    ids = load_tokenizer(Checkpoint(str(folder)))(text, return_tensors="pt")["input_ids"]
    made = plain.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=3)
    assert made[0, ids.shape[1] :].tolist()[-1] == END
    assert made.shape[1] == ids.shape[1] + 2


def test_a_boosted_folder_lists_the_tokenizers_ends_for_others(
    tiny_tokenizer: Path, tmp_path: Path
) -> None:
    """The pair's generation config has one of two: Transformers and vLLM read it alone."""
    settings = pair_settings(tiny_tokenizer, tmp_path / "in", ends=END)
    boost(settings, tmp_path / "out")
    listed = read_json(tmp_path / "out" / "model" / "generation_config.json")
    assert listed["eos_token_id"] == [END, EOS]
    assert listed["pad_token_id"] == 3, "the rest is the fine-tuned model's"


def test_runs_of_a_boost_have_the_ids_they_had_unless_more_ends_count(
    tiny_tokenizer: Path, tmp_path: Path
) -> None:
    held: dict[str, Any] = {}
    for name, ends in (("plain", EOS), ("beyond", (EOS, 300)), ("more", (EOS, END))):
        settings = check_settings(pair_settings(tiny_tokenizer, tmp_path / name, ends))
        pair = resolve(settings.early or ""), resolve(settings.ft or "")
        job = Boost(settings, pair, Store(tmp_path / name / "store"), Silent())
        rows = load_data(settings).test
        arm = Arm("x", 0, 0, None)
        found = [job.run(kind, arm, job.format.render(rows), "test") for kind in ("score", "nll")]
        held[name] = [*(run.id for run in found), plan("epicode-main", settings).run.id]
        listed = found[0].inputs.get("stop_ids")
        assert listed == ([END, EOS] if name == "more" else None)
    assert held["plain"] == held["beyond"]
    assert held["plain"][0] != held["more"][0]
    assert held["plain"][1] == held["more"][1], "what is not decoded has no end of turn"
    assert held["plain"][2] != held["more"][2]


def test_of_an_adapter_the_base_says_it_unless_it_does_itself(
    tiny_tokenizer: Path, tmp_path: Path
) -> None:
    base = talking(tmp_path / "base", tiny_tokenizer)
    folder = save_adapter(tmp_path / "adapter", base, 1, target_modules=["q_proj"])
    load_tokenizer(Checkpoint(str(base))).save_pretrained(folder)
    assert springback.generate(folder, ["3 + 4?"], max_new_tokens=8) == ["7"]
    [nine] = load_tokenizer(Checkpoint(str(base)))("9")["input_ids"]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": nine}))
    [answer] = springback.generate(folder, ["3 + 4?"], max_new_tokens=8)
    assert answer == "7", "<|endoftext|> is skipped as text, and 9 now ends the turn"
    assert stop_ids(load(folder).tokenizer, CHAT, load(folder).expert) == (EOS, nine)


def words(folder: Folder, generation: Path | None) -> Sequence[str]:
    return launch.command(folder, ServeSettings(engine="vllm"), "mine", 8000, generation)


def test_vllm_is_told_what_it_would_not_find(tiny_tokenizer: Path, tmp_path: Path) -> None:
    """It knows the tokenizer's end token and the generation config's; not the template's, nor the
    config's where a generation config names none."""
    folder = talking(tmp_path / "m", tiny_tokenizer)
    tokenizer = load_tokenizer(Checkpoint(str(folder)))
    assert generation_config(open_folder(folder), tokenizer) is None
    rename_ends(folder, (), (END, EOS))
    told = generation_config(open_folder(folder), tokenizer)
    assert told is not None
    assert told["eos_token_id"] == [END, EOS]
    rename_ends(folder, END)
    tokenizer.eos_token = "<|endoftext|>"  # the template still closes with <|im_end|>
    told = generation_config(open_folder(folder), tokenizer)
    assert told is not None
    assert told["eos_token_id"] == [END, EOS]
    place = tmp_path / "place"
    assert "--generation-config" not in words(open_folder(folder), None)
    listed = words(open_folder(folder), place)
    assert listed[listed.index("--generation-config") + 1] == str(place)


def test_rloo_learns_from_answers_that_end_there(model: Path, tokenizer: Any) -> None:
    """The model lists the end of its turn; where it does not, the rows' template may name it."""
    seen: list[str] = []

    def reward(prompts: list[str], texts: list[str]) -> list[float]:
        seen.extend(texts)
        return [0.0 for _ in texts]

    start: Any = load_model(Checkpoint(str(model)))
    with torch.no_grad():
        start.lm_head.weight.mul_(50.0)  # sampled, and yet sure
    prompts = [Prompt(tuple(tokenizer("a\n")["input_ids"]), "a")]
    learning = recipe(
        "rloo", learning_rate=1e-6, batch_size=1, generations=2, new_tokens=4, beta=0.0
    )

    def sampled(**more: Any) -> list[str]:
        seen.clear()
        finetune(start, tokenizer, Examples(prompts, reward=reward, **more), learning)
        return list(seen)

    assert sampled() == ["7", "7"]
    start.generation_config.eos_token_id = EOS
    assert sampled() == ["799", "799"]
    assert sampled(stop_ids=(END,)) == ["7", "7"]


def test_runs_of_an_audit_have_the_ids_they_had_unless_more_ends_count(
    tiny_tokenizer: Path, tmp_path: Path
) -> None:
    folder = talking(tmp_path / "m", tiny_tokenizer, ends=EOS)
    settings = check_audit(
        AuditSettings(
            model=str(folder),
            n_pos=(8,),
            controls=(),
            doses=(8,),
            holdout=4,
            prompts=2,
            resistance_rows=8,
        )
    )
    found = {}
    for name, ends in (("plain", EOS), ("beyond", (EOS, 300)), ("more", (EOS, END))):
        rename_ends(folder, ends)
        kept = PromptFilter(settings)
        study = Study(
            settings, load_rows(settings, kept), Store(tmp_path), Silent(), prompt_filter=kept
        )
        assert study.stop_inputs == ({"stop_ids": [END, EOS]} if name == "more" else {})
        planned = (rebound.start_run(), resistance.slice_run(settings, 0, 1))
        found[name] = {run.identity(study).id for run in planned}
    assert found["plain"] == found["beyond"]
    assert not found["plain"] & found["more"]
