"""What is seen to be wrong at once is refused before torch, Transformers or SciPy are loaded."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from springback.errors import EXTRA_OF

#: Runs command lines one after the other with the modules of every extra hidden, and prints the
#: exit code and the errors of each as JSON.
RUN = """
import contextlib, importlib.abc, io, json, sys
missing, lines = set(json.loads(sys.argv[1])), json.loads(sys.argv[2])
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
sys.path.append("packages")
from springback.cli import main
done = []
for line in lines:
    sys.argv[:] = ["springback", *line]
    errors, code = io.StringIO(), 0
    with contextlib.redirect_stderr(errors):
        try:
            main()
        except SystemExit as end:
            code = end.code
    done.append([code, errors.getvalue()])
print(json.dumps(done))
"""
PROBLEMS = "--validation problems --test problems"
BOOST = f"boost --model smollm2-135m --train problems {PROBLEMS}"
JUDGED = "audit --probes margin,behaviour --behaviour"
GIVEN = "boost --early ./early --ft ./ft"

#: A command line, and what its one line of refusal says.
REFUSED = {
    # study files
    "audit nowhere.yaml": "cannot read the study file 'nowhere.yaml'",
    "boost nowhere.yaml": "cannot read the study file 'nowhere.yaml'",
    "generate nowhere.yaml": "cannot read the study file 'nowhere.yaml'",
    "audit wrong.yaml": "'seedz' (did you mean seeds?)",
    "boost wrong.yaml": "'seedz'",
    "check check.yaml": "check.yaml has 'textz' (did you mean texts?)",
    # values
    "audit --n-pos 3": "--n-pos has [3]; allowed are 0 (the model as it is) and multiples",
    "audit --doses 9 --series a/a,b/b": "--doses has [9]",
    "audit --learning-rate -1": "--learning-rate is -1.0",
    "audit --precision fp8": "precision 'fp8'",
    "audit --device cuba": "--device cuba; allowed: auto, cpu, mps, cuda, cuda:N",
    "audit --dtype float23": "--dtype float23; allowed: auto, float32",
    f"{BOOST} --mu nonsense": "--mu is 'nonsense'",
    f"{BOOST} --mu=-1": "--mu has [-1.0]",
    f"{BOOST} --gate top:7": "--gate: given: 'top:7'",
    f"{BOOST} --epochs 1": "--epochs is 1",
    "generate org/model hello --temperature -1": "temperature = -1.0; allowed: 0 (greedy) or more",
    "serve org/model --port 8000 --batch 0": "allowed",
    "extrapolate early ft --mu nonsense --out new": "nonsense",
    "check smollm2-135m org/other --text-rows 0": "--text-rows is 0",
    "reproduce elasticity-size --n-pos 3": "--n-pos has [3]",
    "reproduce elasticity-scale --sizes 3x3": "--sizes: given: '3x3'",
    "reproduce epicode-main --alpha 7": "--alpha is 7.0",
    "reproduce overbend --scale huge": "--scale is huge; allowed: small, paper",
    # names
    "audit --probes margin,kll": "(did you mean kl?)",
    "audit --attackers lorra": "--attackers has lorra (did you mean lora?)",
    "audit --probes margin,behaviour --behaviour vadr": "(did you mean vader?)",
    "audit --algorithm dpoo": "--algorithm has dpoo (did you mean dpo?)",
    "audit --controls neutrl": "--controls has neutrl (did you mean neutral?)",
    "audit --align reviews:positiv": "(did you mean reviews:positive?)",
    "boost --early a/a --ft b/b --task gsm8": "'gsm8' (did you mean gsm8k?)",
    f"{BOOST} --metric numbr": "numbr (did you mean number?)",
    f"{BOOST} --search joined": "--search",
    "generate org/model hello --draft ngrm": "'ngrm' (did you mean ngram?)",
    "reproduce elasticity-sizes": "(did you mean elasticity-size?)",
    "reproduce epicode-main --task logicqa": "'logicqa' (did you mean logiqa?)",
    "audit --seeds 0,-1": "seed -1; allowed: 0 to 4294967295",
    # what is empty, as of a variable that is not set
    "audit --model ''": "a model without a name ('')",
    "generate '' hello": "a model without a name ('')",
    "serve '' --port 0": "a model without a name ('')",
    "audit --out ''": "--out is empty",
    "boost --out= --task gsm8k": "--out is empty",
    "clean '' --yes": "clean got an empty argument",
    "--quiet report ''": "report got an empty argument",
    "compare a ''": "compare got an empty argument",
    "extrapolate '' ft --mu 1 --out new": "extrapolate got an empty argument",
    # places for results that are none
    "audit --out wrong.yaml": "--out wrong.yaml is a file; name a folder",
    "audit --out wrong.yaml/new": "wrong.yaml, a file; name a folder",
    "audit --out lost": "lost is a link; allowed: a folder, or a link to one that is there",
    "audit --out held/new": "lies in a model folder",
    f"{BOOST} --out held": "--out held is a model folder",
    "check smollm2-135m gemma3-270m --out lost": "lost is a link",
    # folders and files that are not there
    "audit --align text.txt": "'text.txt' ends in '.txt'; allowed: .jsonl",
    "audit --model smollm2-135": "no model at 'smollm2-135' (did you mean smollm2-135m?)",
    "audit --model empty": "empty has no config.json, so it is not a model folder",
    "audit --perturb nowhere.jsonl": "no such file: 'nowhere.jsonl'",
    "audit --probes margin,neutral_nll --neutral nowhere.jsonl": "no such file: 'nowhere.jsonl'",
    "audit plan --align nowhere.jsonl": "no such file: 'nowhere.jsonl'",
    f"boost --early early --ft ft {PROBLEMS}": "no model at 'early'",
    f"boost --run nowhere {PROBLEMS}": "--run nowhere, which is no folder",
    "boost --model smollm2-135m --train problems --validation problems --test no.csv": "'no.csv'",
    "generate ./nowhere hello": "no model at './nowhere'",
    "serve ./nowhere": "no model at './nowhere'",
    "check smollm2-135m ./nowhere": "no model at './nowhere'",
    "check smollm2-135m gemma3-270m --texts nowhere.txt": "no such file: 'nowhere.txt'",
    "extrapolate early ft --mu 1 --out new": "no model at 'early'",
    # attackers
    "audit --attackers lora --probes margin,way_back": "--attackers with lora",
    "audit --attackers ablation --model gemma": "gemma (gemma3_text) writes along the direction",
    "audit --attackers lora,ablation --model ./nowhere": "no model at './nowhere'",
    # judges
    f"{JUDGED} hf:./nowhere": "no model at './nowhere'",
    f"{JUDGED} hf:smollm2-135m": "smollm2-135m is no text classifier",
    f"{JUDGED} hf:writer": "writer is no text classifier: its config.json says Llama",
    f"{JUDGED} hf:classifier=GOOD": "no label 'GOOD'; allowed: bad, good; choose one",
    f"{JUDGED} hf:classifier=good": "no weights in ",
    f"{JUDGED} vader,hf:=good": "name the model",
    f"{JUDGED} score:empty": "empty has no config.json",
    f"{JUDGED} score:": "name the model",
    f"{JUDGED} model:./nowhere": "no model at './nowhere'",
    f"{JUDGED} model:writer=harmfull": "rubric 'harmfull'",
    f"{JUDGED} openai:127.0.0.1#judge": "give the address",
    f"{JUDGED} openai:http://127.0.0.1/v1#judge=none": "rubric 'none'",
    "audit --algorithm rloo --reward hf:./nowhere": "no model at './nowhere'",
    # tasks of lm-eval
    f"{GIVEN} --metric lm-eval:quizz": "task 'quizz'; allowed: a task that lm-eval knows",
    f"{GIVEN} --metric lm-eval:own/quiz": "task 'quiz'",
    f"{GIVEN} --metric lm-eval:no.yaml:acc": "no such file: 'no.yaml'",
    f"{GIVEN} --metric lm-eval:quiz:": "allowed: lm-eval:TASK",
    f"{GIVEN} --metric lm-eval:quiz --extract (.)": "leave it out, since the task brings",
    f"{GIVEN} --metric lm-eval:quiz_of_sums": "no model at './early'",
    "check smollm2-135m org/other --tasks quiz,summs": "task 'summs'",
    "reproduce overbend --align nowhere.jsonl": "no such file: 'nowhere.jsonl'",
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Exit code and standard error of every command line."""
    folder = tmp_path_factory.mktemp("refusals")
    (folder / "empty").mkdir()
    (folder / "held").mkdir()
    (folder / "held" / "model.safetensors").touch()
    (folder / "lost").symlink_to("nowhere")
    (folder / "text.txt").touch()
    (folder / "wrong.yaml").write_text("seedz: [1]\n")
    (folder / "check.yaml").write_text("base: smollm2-135m\ntuned: org/other\ntextz: [a.txt]\n")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    labels = {"id2label": {"0": "bad", "1": "good"}}
    gemma = {"model_type": "gemma3_text"}
    classifier = {"architectures": None, **labels}
    for name, more in (("writer", {}), ("classifier", classifier), ("gemma", gemma)):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config | more))
    harness = folder / "packages" / "lm_eval"
    (harness / "tasks" / "sums").mkdir(parents=True)
    (folder / "own").mkdir()
    (harness / "__init__.py").write_text("raise AssertionError('lm-eval is loaded')\n")
    (harness / "tasks" / "quiz.yaml").write_text("task: quiz\n")
    several = "group: sums\ntask:\n  - task: quiz_of_sums\n"
    (harness / "tasks" / "sums" / "all.yaml").write_text(several)
    before = sorted(folder.rglob("*"))
    lines = [shlex.split(line) for line in REFUSED]
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(list(EXTRA_OF)), json.dumps(lines)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(folder.rglob("*")) == before
    pairs = json.loads(done.stdout)
    return {line: (code, said) for line, (code, said) in zip(REFUSED, pairs, strict=True)}


@pytest.mark.parametrize("line", REFUSED)
def test_refused_before_torch_is_loaded(line: str, refusals: dict[str, tuple[int, str]]) -> None:
    code, said = refusals[line]
    assert code == 2, said
    (only,) = said.splitlines()
    assert only.startswith("error: ")
    assert REFUSED[line] in only
    assert "needs the package" not in only


def test_cards_are_read_without_torch(tmp_path: Path) -> None:
    hidden = json.dumps(["torch", "transformers"])
    done = subprocess.run(
        [sys.executable, "-c", RUN, hidden, json.dumps([["compare", "here", "there"]])],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=tmp_path,
    )
    assert "no result.json in 'here'; name a folder that an audit wrote to" in done.stdout


def test_what_is_right_goes_on_to_torch(tmp_path: Path) -> None:
    lines = [
        ["audit"],
        f"{BOOST} --metric number".split(),
        ["generate", "smollm2-135m", "hello"],
        ["check", "smollm2-135m", "gemma3-270m"],
        ["reproduce", "elasticity-scale"],
        ["reproduce", "epicode-main"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(list(EXTRA_OF)), json.dumps(lines)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        cwd=tmp_path,
    )
    for code, said in json.loads(done.stdout):
        assert code == 2
        assert "needs the package" in said
