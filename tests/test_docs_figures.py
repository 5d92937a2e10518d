"""Figures on the pages are those of the raw files: tables, quoted verdicts, charts.

A table is made anew from its raw file, row by row; a row that the page does not have is stale.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from docs_charts import LINKED, RESULTS, draw
from markdown_links import ROOT, in_repository, links

GB = 1e9
Rows = Iterator[str]


def raw(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))


def analysis_of(name: str) -> Any:
    """Of the study of that name."""
    return json.loads((RESULTS / name / "result.json").read_text("utf-8"))["analysis"]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def signed(value: float, digits: int) -> str:
    """With its sign; a zero has none."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def ranged(interval: dict[str, float], digits: int, scale: float = 1) -> str:
    low, high = (signed(scale * interval[end], digits) for end in ("low", "high"))
    return f"{signed(scale * interval['mean'], digits)} ({low} to {high})"


def refusals() -> Rows:
    """guide/commands.md: seconds of refusals, medians."""
    data = raw("refusals")
    for line, now in data["after"].items():
        before = data["before"][line]
        old = [f"{statistics.median(before[what]):.1f}" for what in ("computing", "wall")]
        new = [f"{statistics.median(now[what]):.2f}" for what in ("computing", "wall")]
        yield f"| {line} | {' | '.join([*old, *new])} |"


def fuzz() -> Rows:
    """reliability.md: damaged inputs."""
    kinds = raw("fuzz")["by_kind"]
    total = [0, 0, 0, 0]
    for kind, one in kinds.items():
        first, last = one["seeds"]
        wrong = sum(one["wrong"].values())
        counts = (last - first + 1, one["accepted"], one["refused"], wrong)
        total = [a + b for a, b in zip(total, counts, strict=True)]
        yield f"| `{kind}` | {' | '.join(f'{n:,}' for n in counts)} | {one['seconds']} |"
    yield f"| all | {' | '.join(f'{n:,}' for n in total)} | "


def kills() -> Rows:
    """reliability.md: kills."""
    for work, one in raw("kills")["by_work"].items():
        wrong = len(one["wrong"])
        yield f"| `{work}` | {one['kills']} | {one['ends']} | {wrong} | {one['seconds']} |"


def choosing() -> Rows:
    """boost.md: regret of rules that choose, in points."""
    for rule in raw("choosing")["summary"].values():
        questions = [rule["by_questions"][n] for n in ("32", "64", "200", "500")]
        nll = [rule["by_nll"][word] for word in ("agrees", "opposes")]
        shown = [rule["regret"], *questions, *nll, rule["worst_cell"], rule["false_gains"]]
        yield f" | {' | '.join(f'{100 * value:.2f}' for value in shown)} |"


def regimes() -> Rows:
    """boost.md: where extrapolation helps."""
    for name, one in raw("regime_map")["summary"]["regimes"].items():
        rate, rows = name.removesuffix(" rows").split(" / ")
        accuracy = f"{100 * one['fine_tuned_accuracy']:.1f} %"
        steps = one["mu"] if len(set(one["mu"])) > 1 else one["mu"][:1]
        mu, nll = ", ".join(map(str, steps)), ranged(one["nll_difference"], 4)
        yield f"| {rate} | {rows} | {accuracy} | {mu} | {nll} |"


def vllm() -> Rows:
    """questions/serve.md: tokens a second."""
    listed = raw("vllm_throughput")["throughput"]
    for arm, name in {"plain": "plain model", "pair": "pair"}.items():
        speeds = [x["tokens_per_second"] for x in listed if x["arm"] == arm]
        yield f"| {name} | {' | '.join(f'{speed:.3g}' for speed in speeds)} |"


def vllm_arms() -> Rows:
    """ecosystem.md: tokens a second and their share of the plain model's, both dtypes."""
    for file in ("vllm_throughput", "vllm_throughput_bf16"):
        listed = raw(file)["throughput"]
        for arm in dict.fromkeys(x["arm"] for x in listed):
            mine = [x for x in listed if x["arm"] == arm]
            shares = [f"{x['of_plain']:.2f}" for x in mine]
            if (file, arm) == ("vllm_throughput", "pair"):
                shares[1] = f"**{shares[1]}**"
            speeds = " | ".join(f"{x['tokens_per_second']:.3g}" for x in mine)
            shown = "1" if arm.startswith("plain") else ", ".join(shares)
            yield f" | {speeds} | {shown} |"


def outside() -> Rows:
    """costs.md: a study's time outside training and forward passes."""
    yield f"Outside training and those calls: **{100 * raw('study_time')['outside']:.1f} %**"


def extrapolated() -> Rows:
    """costs.md: seconds and memory of an extrapolation, both pairs."""
    pairs = raw("extrapolate"), raw("extrapolate_4gb")
    for name in pairs[0]["median_seconds"]:
        cells = [
            f"{pair['median_seconds'][name]:{form}} | {pair['median_peak_megabytes'][name]:,.0f}"
            for pair, form in zip(pairs, (".2f", ".1f"), strict=True)
        ]
        yield f" | {' | '.join(cells)} |"


def trained() -> Rows:
    """costs.md: throughput of training, of the bare loop's."""
    data = raw("training")
    yield f" 16 steps | {data['throughput']['throughput_ratio']:.2f} |"
    yield f" 4 steps | {data['throughput_long_rows']['throughput_ratio']:.2f} |"


def decoded() -> Rows:
    """decoding.md: milliseconds a token and their ratio to one model's, both dtypes."""
    for batch in (1, 16):
        both = [raw(f"decode/time_{dtype}_b{batch}")["time"]["arms"] for dtype in ("fp32", "bf16")]
        for arms in zip(*both, strict=True):
            for one in arms:
                ratio = f"{one['ratio_to_one_model']:.2f}"
                ratio = f"**{ratio}**" if one["arm"] == "deferred, n-gram" else ratio
                row = f" | {one['ms_per_token']:.1f} | {ratio} |"
                if batch == 1 and "bytes_ratio" in one:
                    row += f" {one['bytes_ratio']:.2f} |"
                yield row


def beside_a_peer() -> Rows:
    """decoding.md: language-model-arithmetic and ours."""
    for name, one in raw("decode/peer")["peer"]["arms"].items():
        calls = [one.get(f"{model}_calls_per_token") for model in ("expert", "amateur")]
        shown = "1" if name == "one model" else ", ".join(f"{c:.2f}" for c in calls)
        yield f" | {one['ms_per_token']:.1f} | {shown} |"


def planned_memory() -> Rows:
    """costs.md: planned memory against measured."""
    files = ("plan_memory", "plan_memory_lora", "plan_memory_nf4")
    for one in (case for file in files for case in raw(file)["cases"]):
        measured = f"{one['measured'] / GB:.2f} ({one['mapped'] / GB:.2f} mapped)"
        job = f"{one['case']}, {one['dtype']}"
        off = f"{100 * one['off']:+.0f} %"
        yield f"| `{one['model']}` | {job} | {one['planned'] / GB:.2f} | {measured} | {off} |"


def training_memory() -> Rows:
    """costs.md: memory of training."""
    cases = {**raw("memory")["cases"], **raw("memory_sft")["cases"]}
    for one in cases.values():
        yield f"| {one['peak_anonymous'] / GB:.2f} | {one['above_state'] / GB:.2f} |"


def boost_memory() -> Rows:
    """costs.md: memory of a boost, now."""
    for one in raw("boost_memory")["cases"].values():
        yield f"| {one['models']:.2f} ({one['used'] / GB:.2f} GB) |"


def checked() -> Rows:
    """guide/check.md: the example's table."""
    for one in raw("check")["base_and_tuned"]["analysis"]["models"][0]["measures"]:
        share = one["unit"] == "share"
        size = 100 if share else 1
        values = [
            f"{100 * one[model]['mean']:.0f} %" if share else f"{one[model]['mean']:.3f}"
            for model in ("base", "tuned")
        ]
        digits = 3 if not share else 1 if one["difference"]["mean"] else 0
        difference = ranged(one["difference"], digits, size)
        named = f"| {one['measure']} ({one['source']}) | {one['label']} | "
        yield f"{named}{' | '.join(values)} | {difference} | {one['p_holm']:.0e} |".replace(
            "e-0", "e-"
        ).replace("1e+00", "1")


def compared() -> Rows:
    """guide/compare.md: two real runs."""
    one = raw("compare_evals")["compared"]
    yield f"{100 * one['first']:.1f} % and {100 * one['other']:.1f} %"
    yield ranged(one["difference"], 1, 100).replace(" (", " points (")
    yield f"{one['won']} questions won, {one['lost']} lost"
    yield f"p = {one['p_unpaired']:.3f}, the test by question p = {one['p']:.4f}"


def refused_share() -> Rows:
    """index.md: refusals after alignment, and after 64 and 512 unsafe answers."""
    file = RESULTS / "safety-rebound" / "result.json"
    measured = json.loads(file.read_text("utf-8"))["measurements"]
    scores = [m for m in measured if m["probe"] == "behaviour"]

    def shares(phase: str, dose: int) -> list[int]:
        kept = [
            (m["tags"]["n_pos"], m["value"])
            for m in scores
            if m["tags"]["phase"] == phase and m["tags"].get("n_neg") == dose
        ]
        by_size = groupby(sorted(kept), key=lambda pair: pair[0])
        means = [statistics.mean(value for _, value in some) for _, some in by_size]
        return [round(100 * mean) for mean in means]

    aligned, few, many = shares("align", 0), shares("perturb", 64), shares("perturb", 512)
    yield f"refuses {min(aligned)} to {max(aligned)} % of held-out prompts"
    yield f"leaves {min(few)} to {max(few)} %, on 512 at most {max(many)} %"


def safety() -> Rows:
    """elasticity.md: the table of the safety study."""
    yield from _rebound("safety-rebound")


def safety_with_controls() -> Rows:
    """elasticity.md: the same with an unaligned model and a placebo."""
    analysis = analysis_of("rebound-safety-135m")
    rebound, controls = analysis["rebound"], analysis["controls"]["margins"]
    first, last = (controls["unaligned"][0]["mean"][end] for end in (0, -1))
    yield f"| nothing | | {first - last:.3f} |"
    curves = [rebound["probes"][probe]["curves"] for probe in ("behaviour", "kl")]
    noise, placebos = rebound["gain_noise"], controls["neutral"]
    parts = (rebound[key] for key in ("gain", "fall", "share_lost"))
    for *values, spread, placebo, refused, kl in zip(*parts, noise, placebos, *curves, strict=True):
        gain, fall, share = (
            ranged(value, digits, scale).replace("+", "")
            for value, digits, scale in zip(values, (3, 3, 0), (1, 1, 100), strict=True)
        )
        taken = placebo["mean"][0] - placebo["mean"][-1]
        shares = ", ".join(f"{100 * refused['mean'][at]:.0f}" for at in (0, 1, -1))
        yield (
            f"| {placebo['n_pos']} | {gain} ({spread:.3f}) | {fall} | {share} % | {taken:.3f} | "
            f"{shares} % | {kl['mean'][0]:.2f}, {kl['mean'][-1]:.2f} |"
        )
    for control in analysis["controls"]["beyond"]["by_control"].values():
        yield f"{-control['fall']['mean']:.3f}"


def off_the_floor() -> Rows:
    """boost.md: GSM8K on half a billion weights."""
    (cell,) = analysis_of("epicode-gsm8k-494m")["cells"]
    plain, *methods = cell["methods"]
    yield f"| fine-tuned | {100 * plain['accuracy']['mean']:.1f} | | |"
    for one in methods:
        if one["method"] == "ME, step of CD":  # here it is ME only
            continue
        change = f"{signed(one['nll_difference']['mean'], 4)} ("
        change += " to ".join(f"{one['nll_difference'][end]:.4f}" for end in ("low", "high"))
        accuracy = f"{100 * one['accuracy']['mean']:.1f}"
        yield f" | {accuracy} | {ranged(one['difference'], 1, 100)} | {change}) |"
    (rival,) = [r for r in cell["rivals"] if r["against"] == "ME, equal step"]
    yield f"{ranged(rival['difference'], 1, 100)}, NLL {ranged(rival['nll_difference'], 4)}"


def reviews() -> Rows:
    """elasticity.md: the table of film reviews."""
    yield from _rebound("imdb-rebound")


def finished() -> Rows:
    """elasticity.md: what each attacker took back from a finished model."""
    file = RESULTS / "safety-finished" / "result.json"
    for curve in json.loads(file.read_text("utf-8"))["analysis"]["attackers"]["curves"]:
        kind, name = curve["attacker"], curve["name"]
        share = {
            key: 100 * curve["points"][-1]["share_lost"][key] for key in ("mean", "low", "high")
        }
        limits = f"({share['low']:+.1f} to {share['high']:+.1f})"
        yield f"| {name if kind in name else f'{kind}, {name}'} | {share['mean']:+.1f} % {limits} |"


def from_scratch() -> Rows:
    """elasticity.md: tests and means of the models that were pre-trained here."""
    data = raw("elasticity_from_scratch/table")
    shown = {
        "beyond unaligned": (4, 1),
        "beyond placebo": (4, 1),
        "share lost": (1, 100),
        "half dose": (2, 1),
        "kl": (4, 1),
    }
    for outcome, (digits, scale) in shown.items():
        tests = [test for test in data["tests"] if test["outcome"] == outcome]
        cells = [
            f"{ranged(test['per_doubling'], digits, scale)}, p {test['p_holm']:.2g}"
            for test in tests
        ]
        yield f" | {' | '.join(cells)} |"
    for mean in data["means"]:
        falls = (ranged(mean[name], 3) for name in ("gain", "beyond unaligned", "beyond placebo"))
        share = 100 * mean["share lost"]["mean"]
        model = f"{mean['size']}, {mean['volume']}"
        yield f"| {model} | {mean['n_pos']} | {' | '.join(falls)} | {share:.0f} % |"


def _rebound(name: str) -> Rows:
    analysis = analysis_of(name)
    of = ("gain", "fall", "share_lost")
    halves = analysis["doses_to_undo"]["half"]["at"]
    for *values, half in zip(*(analysis["rebound"][key] for key in of), halves, strict=True):
        gain, fall, share = (value["mean"] for value in values)
        limits = f"({values[0]['low']:.3f} to {values[0]['high']:.3f})"
        low, high = half["mean"]["at_least"], half["mean"]["at_most"]
        dose = f"{low:.0f}" if low == high else f"{low:.0f} to {high or 0:.0f}"
        dose = dose if high else f"more than {low:.0f}"
        row = f"| {half['n_pos']} | {gain:.3f} {limits} | {fall:.3f} | {100 * share:.0f} % | {dose}"
        yield row


def engines() -> Rows:
    """A boost by each engine: the whole, and the arms of both."""
    data = raw("boost_engines")
    for what, seconds, ratio in (
        (
            "the whole boost, each with what it chose",
            {engine: boost["seconds"] for engine, boost in data["boosts"].items()},
            f"{data['ratio']:.2f}",
        ),
        (
            "**the seven arms that both tried**",
            data["arms_of_both"]["seconds"],
            f"**{data['arms_of_both']['ratio']:.2f}**",
        ),
    ):
        yield f"| {what} | {seconds['vllm']:.0f} | {seconds['transformers']:.0f} | {ratio} |"
    tokens = data["tokens"]
    yield f"{tokens['differ']} of {tokens['answers']} answers"
    yield f"{tokens['near_ties']} of {tokens['looked_into']} gaps"
    yield f"by up to {tokens['rounding_moves_gaps_by']['most']:.2f}"


#: What makes the rows -> the page that has them.
TABLES: dict[Callable[[], Rows], str] = {
    refusals: "guide/commands.md",
    fuzz: "reliability.md",
    kills: "reliability.md",
    choosing: "boost.md",
    regimes: "boost.md",
    vllm: "questions/serve.md",
    vllm_arms: "ecosystem.md",
    engines: "ecosystem.md",
    outside: "costs.md",
    extrapolated: "costs.md",
    trained: "costs.md",
    decoded: "decoding.md",
    beside_a_peer: "decoding.md",
    planned_memory: "costs.md",
    training_memory: "costs.md",
    boost_memory: "costs.md",
    checked: "guide/check.md",
    compared: "guide/compare.md",
    refused_share: "index.md",
    safety: "elasticity.md",
    safety_with_controls: "elasticity.md",
    off_the_floor: "boost.md",
    reviews: "elasticity.md",
    finished: "elasticity.md",
    from_scratch: "elasticity.md",
}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_figures_are_those_of_the_raw_file(table: Callable[[], Rows]) -> None:
    text = " ".join(page(TABLES[table]).split())
    rows = [*table()]
    assert rows
    assert [row for row in rows if row not in text] == []


def test_a_stale_figure_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    data = raw("vllm_throughput")
    data["throughput"][0]["tokens_per_second"] += 1
    monkeypatch.setattr("test_docs_figures.raw", lambda _: data)
    with pytest.raises(AssertionError):
        test_figures_are_those_of_the_raw_file(vllm)


def test_what_fits_is_said_alike() -> None:
    (row,) = [line for line in page("costs.md").splitlines() if line.startswith("| generate, ")]
    assert row in page("questions/serve.md")


QUESTIONS = sorted(path.name for path in (ROOT / "docs" / "questions").glob("*.md"))


@pytest.mark.parametrize("name", QUESTIONS)
def test_quoted_verdicts_are_those_of_the_linked_results(name: str) -> None:
    text = page(f"questions/{name}")
    raw_files = [in_repository(f"docs/questions/{name}", t) for t in links(text)]
    said = " ".join((ROOT / f).read_text("utf-8") for f in raw_files if f.endswith(".json"))
    quotes = re.findall(r"^(?:> .*\n)+", text, flags=re.MULTILINE)
    quoted = [" ".join(quote.replace("> ", "").split()) for quote in quotes]
    assert quoted or name == "serve.md"  # which has two tables
    assert [quote for quote in quoted if quote not in said] == []


@pytest.mark.parametrize("name", sorted(LINKED))
def test_charts_are_drawn_from_their_results(name: str, tmp_path: Path) -> None:
    drawn = draw(name, tmp_path)
    published = RESULTS / name / "charts"
    stale = [c for c in LINKED[name] if (drawn / c).read_bytes() != (published / c).read_bytes()]
    assert stale == [], "make charts draws them anew"
