"""Commands, flags and exit codes.  Each command imports its job when it runs, not before."""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from springback.cli import ecosystem
from springback.cli.clean import clean
from springback.cli.compress import compress, decompress
from springback.cli.extrapolate import extrapolate
from springback.cli.finish import finish
from springback.cli.flags import FIRST, GroupedCommand, StudyCommand, take, with_settings
from springback.cli.generate import generate
from springback.cli.output import OUTPUT, emit, last_line, read_output
from springback.cli.plan import audit_plan, boost_plan, plan_settings
from springback.cli.say import say, say_block
from springback.cli.theory import app as theory
from springback.core import printable, to_jsonable
from springback.errors import SpringbackError, SpringbackWarning, missing_extra
from springback.integrations.ray.settings import ExecutorSettings
from springback.jobs.audit.plan_settings import LargeSettings
from springback.jobs.audit.settings import BARE, AuditSettings
from springback.jobs.boost.settings import BoostSettings
from springback.jobs.check.settings import CheckSettings
from springback.jobs.papers.epicode.settings import NAMES as EPICODE
from springback.jobs.papers.epicode.settings import EpicodeSettings
from springback.jobs.papers.scale.settings import NAME as SCALE
from springback.jobs.papers.scale.settings import ScaleSettings
from springback.jobs.papers.settings import REPRODUCTIONS, THEORY
from springback.jobs.plan_settings import PlanSettings
from springback.settings import Settings

app = typer.Typer(
    name="springback",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=(
        "Measure how strongly an aligned language model springs back (audit), and make a "
        "fine-tuned one better without training (boost). Start with: springback demo"
    ),
    epilog="Exit codes: 0 done, 2 the input is at fault (one line says how), 130 interrupted, "
    "143 stopped.",
)

REPRODUCED = (*REPRODUCTIONS, SCALE, *THEORY, *EPICODE)
Out = Annotated[
    Path,
    typer.Option(help="Folder for results; the same command goes on there.", rich_help_panel=FIRST),
]
Track = Annotated[
    list[str] | None,
    typer.Option(help="Log to mlflow[:URI], tensorboard[:FOLDER] or wandb[:PROJECT] at the end."),
]
OnlyPlan = Annotated[
    bool,
    typer.Option(
        "--plan",
        help="Print what it would run, time, memory by part and disk; run nothing.",
        rich_help_panel=FIRST,
    ),
]
Push = Annotated[
    str | None, typer.Option(help="Upload the boosted folder to org/name on the Hub; private.")
]


def _check_track(targets: list[str] | None) -> None:
    """Raise for an unknown tracker before the work, not after it."""
    if targets:
        from springback.integrations.trackers import check_targets

        check_targets(targets)


def _version(asked: bool) -> None:
    if asked:
        from springback.results.provenance import package_version

        say(f"springback {package_version('springback') or 'source tree'}")
        raise typer.Exit


@app.callback()
def _root(
    asked: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_version),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the whole trace of an error.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="No progress; the result and errors alone.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Also what the libraries below have to say.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="End with one line of JSON on standard output; the rest goes to errors."
        ),
    ] = False,
    no_color: Annotated[
        bool, typer.Option("--no-color", help="No colours, as with NO_COLOR set.")
    ] = False,
) -> None:
    """Flags for every command, at any place in the line: :func:`read_output` takes them off."""


@app.command()
def demo(
    out: Out = Path("springback-demo"),
    quick: Annotated[bool, typer.Option(help="Smaller: about 2 minutes, noisier.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
) -> None:
    """Run audit and boost on the built-in model and data; ends with a report."""
    from springback.cli.progress import make_progress
    from springback.jobs.demo import demo as run

    finish(run(out, quick=quick, seed=seed, progress=make_progress()))


@app.command(cls=GroupedCommand)
@with_settings(
    AuditSettings,
    ExecutorSettings,
    LargeSettings,
    first="model align perturb experiments n_pos doses seeds algorithm",
)
def audit(
    given: dict[str, Any],
    study: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[plan] [STUDY.yaml]",
            help="A study file; with 'plan' before it (or alone) nothing is run.",
        ),
    ] = None,
    out: Out = Path("springback-audit"),
    track: Track = None,
    plan_only: OnlyPlan = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print every setting as a study file, run nothing.")
    ] = False,
) -> None:
    """Align a model, perturb it the other way, measure how it springs back.

    Settings come from flags, from a study file (YAML; a flag wins), or both. 'audit plan' (or
    --plan) prints the runs, tokens, time, memory by part and disk; with --size also of models that
    are not at hand.

    With --n-pos 0 nothing is aligned: how little undoes a model as it is? Then --perturb alone is
    enough; --align adds held-out wanted texts, --base the model that it was made from.

    On the built-in model and data: one seed unless --seeds says otherwise, the unaligned control
    alone, no NLL of neutral texts, about 10 minutes on 2 cores. Studies of your own default to 3
    seeds, all controls and that NLL.
    """
    from springback.cli.progress import make_progress
    from springback.jobs import config
    from springback.jobs.audit.checks import refuse
    from springback.jobs.audit.studies import planned as studies_of

    _check_track(track)
    values, planned = _study_of(AuditSettings, study)
    only_plan = planned or plan_only
    executor = take(ExecutorSettings, given).checked()
    large = plan_settings(LargeSettings, given, only_plan, "audit")
    settings = config.build(AuditSettings, {**values, **given})
    bare = ("model", "series", "align", "perturb")
    built_in = all(getattr(settings, name) == getattr(AuditSettings(), name) for name in bare)
    if built_in:
        bare_values = {name: v for name, v in BARE.items() if name not in {*values, *given}}
        settings = replace(settings, **bare_values)
    if show:
        say_block(config.show(settings))
        return
    for single, folder in () if large.size else studies_of(settings, out):
        refuse(single.settings, folder)
    if only_plan:
        audit_plan(settings, large, out)
        return
    if settings.series:
        from springback.jobs.audit.series import series as run
    else:
        from springback.jobs.audit.job import audit as run
    finish(run(settings, out, make_progress(), executor), track)


@app.command()
def compare(
    places: Annotated[
        list[str],
        typer.Argument(
            help="Folders that audits wrote to; or samples of lm-eval or logs of inspect_ai."
        ),
    ],
    answers: Annotated[
        str | None,
        typer.Option("--filter", help="Of lm-eval, where a task has several: which one."),
    ] = None,
) -> None:
    """Models side by side, with tests for the differences (Markdown).

    Cards of audits; or runs of lm-eval (--log_samples) and inspect_ai, each against the first,
    paired by question.
    """
    from springback.integrations.eval_logs import is_eval

    if any(is_eval(place) for place in places):
        from springback.jobs.compare_evals import compare_evals

        compared = compare_evals(places, answers)
        emit(comparison=to_jsonable(compared))
        say_block(compared.to_markdown())
        return
    from springback.results.cards import read_cards

    cards = read_cards(places)
    emit(comparison=to_jsonable(cards))
    say_block(cards.to_markdown())


@app.command(cls=GroupedCommand)
@with_settings(
    AuditSettings,
    EpicodeSettings,
    ScaleSettings,
    ExecutorSettings,
    first="model series align perturb tasks seeds executor",
)
def reproduce(
    given: dict[str, Any],
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(REPRODUCED)}.")],
    scale: Annotated[
        str,
        typer.Option(help="small (built-in models and data) or paper.", rich_help_panel=FIRST),
    ] = "small",
    out: Annotated[
        Path | None, typer.Option(help="Default: springback-NAME.", rich_help_panel=FIRST)
    ] = None,
    only_plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Print the runs of a study of models (not a theory), run nothing.",
            rich_help_panel=FIRST,
        ),
    ] = False,
) -> None:
    """A table or figure of the papers: published beside measured.

    The other flags replace settings of its studies, such as the data: for elasticity-... those of
    audit (elasticity-scale also has --sizes, --volumes, --corpus), for epicode-... those of boost
    with --seeds, --series and --tasks.
    """
    from springback.cli.progress import make_progress
    from springback.jobs.papers.checks import refuse

    executor = take(ExecutorSettings, given).checked()
    folder = out or Path(f"springback-{name}")
    refuse(name, scale, folder, given)
    if only_plan:
        say_block(_plan_of(name, scale, folder, given))
        return
    from springback.jobs.papers.epicode.job import reproduce_epicode
    from springback.jobs.papers.reproduce import reproduce as run
    from springback.jobs.papers.reproduce import reproduce_theory

    if name in THEORY:
        finish(reproduce_theory(name, folder, make_progress()))
        return
    if name == SCALE:
        from springback.jobs.papers.scale.job import scale_study

        result = scale_study(scale, folder, given, make_progress(), executor)
    elif name in EPICODE:
        result = reproduce_epicode(name, scale, folder, given, make_progress(), executor)
    else:
        result = run(name, scale, folder, given, make_progress(), executor)
    say_block((result.folder / "reproduce.md").read_text(encoding="utf-8"))
    finish(result)


def _plan_of(name: str, scale: str, folder: Path, given: dict[str, Any]) -> str:
    """What a reproduction would run.  Raises :class:`SpringbackError` for a theory."""
    from springback.jobs.papers.epicode.plan_at_hand import plan as epicode_plan
    from springback.jobs.papers.reproduce import plan
    from springback.jobs.papers.scale.plan import plan as scale_plan

    if name in THEORY:
        allowed = ", ".join([*REPRODUCTIONS, SCALE, *EPICODE])
        raise SpringbackError(f"--plan with {name}; allowed: with {allowed}; leave it out")
    if name in EPICODE:
        return "\n".join(epicode_plan(name, scale, given, timed=True))
    if name == SCALE:
        return scale_plan(scale, folder, given)
    return plan(name, scale, folder, given)


@app.command(cls=GroupedCommand)
@with_settings(
    BoostSettings,
    PlanSettings,
    ExecutorSettings,
    first="task validation test early ft run model train",
)
def boost(
    given: dict[str, Any],
    study: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[plan] [STUDY.yaml]",
            help="A study file; with 'plan' before it (or alone) nothing is run.",
        ),
    ] = None,
    out: Out = Path("springback-boost"),
    track: Track = None,
    push: Push = None,
    plan_only: OnlyPlan = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print every setting as a study file, run nothing.")
    ] = False,
    show_prompt: Annotated[
        bool,
        typer.Option(
            "--show-prompt",
            help="Print the first validation question as the model reads it, and how its answer "
            "is read; run nothing.",
        ),
    ] = False,
) -> None:
    """Extrapolate past the last checkpoint, decode contrastively, and prove the gain.

    Give --early and --ft, or --model and --train; and --validation and --test, or a --task; as
    flags, in a study file (YAML; a flag wins), or both.
    'boost plan' (or --plan) prints training, searches, test, time, memory by part and disk; with
    --size of models that are not at hand.
    """
    from springback.cli.progress import make_progress
    from springback.jobs import config
    from springback.jobs.boost.checks import refuse
    from springback.jobs.boost.engine import refuse_executor

    _check_track(track)
    if push:
        from springback.integrations.hub_upload import check_name

        check_name(push)
    values, planned = _study_of(BoostSettings, study)
    only_plan = planned or plan_only
    asked = plan_settings(PlanSettings, given, only_plan, "boost")
    executor = take(ExecutorSettings, given).checked()
    settings = config.build(BoostSettings, {**values, **given})
    lacking = [f"--{part}" for part in ("validation", "test") if not getattr(settings, part)]
    brought = settings.task or (settings.metric or "").startswith("lm-eval:")
    if lacking and not brought and not show and not asked.size:
        raise SpringbackError(
            f"no {' and no '.join(lacking)}; name the questions to choose and to judge on "
            "(a file, a hub id or problems), or a --task"
        )
    if not (show or asked.size):
        refuse(settings, out)
        refuse_executor(settings, executor.executor == "ray")
    if show:
        say_block(config.show(settings))
    elif only_plan:
        boost_plan(settings, asked)
    elif show_prompt:
        from springback.jobs.boost.show_prompt import shown

        say_block(shown(settings))
    else:
        from springback.jobs.boost.job import boost as run

        result = run(settings, out, make_progress(), executor)
        finish(result, track)
        if push:
            _push(result, push)


@app.command(cls=StudyCommand)
@with_settings(
    CheckSettings,
    first="run texts choices tasks prompts harmful task",
    leave_out="base tuned",
)
def check(
    given: dict[str, Any],
    base: Annotated[str, typer.Argument(help="The model before: folder, hub id, built-in name.")],
    tuned: Annotated[
        str | None,
        typer.Argument(help="The model after: the same, a PEFT adapter of it, a boosted folder."),
    ] = None,
    out: Out = Path("springback-check"),
    track: Track = None,
    plan_only: OnlyPlan = False,
    show: Annotated[bool, typer.Option("--show", help="Print every setting, run nothing.")] = False,
) -> None:
    """What did fine-tuning break: two models on the same texts, questions and prompts.

    Bits per byte, multiple choice, refusals, KL, how far weights moved, lm-eval's tasks: what got
    better and worse beyond noise. Built-in texts, questions and prompts unless others are named.
    With --run the checkpoints of a run, and which one to take. A study file (YAML; a flag wins)
    may stand for all of it.
    """
    from springback.cli.progress import make_progress
    from springback.jobs import config
    from springback.jobs.check.checks import refuse

    _check_track(track)
    settings = config.build(CheckSettings, {"base": base, "tuned": tuned, **given})
    if show:
        say_block(config.show(settings))
        return
    refuse(settings, out)
    if plan_only:
        from springback.jobs.check.job import plan

        say_block(str(plan(settings, out)))
        return
    from springback.jobs.check.job import check as run

    finish(run(settings, out, make_progress()), track)


def _push(result: Any, repository: str) -> None:
    from springback.integrations.hub_upload import push as run

    folder = result.data["inputs"]["boosted"]
    if folder is None:
        say("nothing to push: the fine-tuned model was kept")
    else:
        say(f"pushed:  {run(result.folder / folder, repository)}")


app.command(cls=StudyCommand)(extrapolate)
app.add_typer(theory, name="theory")
app.command(cls=StudyCommand)(ecosystem.serve)
for _command in (ecosystem.track, ecosystem.push):
    app.command()(_command)
# Everything behind the first word goes through, --help too.
_PASSED = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
}
app.command(name="lm-eval", context_settings=_PASSED)(ecosystem.lm_eval)
app.command()(clean)
app.command()(compress)
app.command()(decompress)
app.command(cls=StudyCommand)(generate)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder with a result.json.")],
) -> None:
    """Rebuild the report from the result file."""
    from springback.report import build

    page = build(folder)
    emit(report=page)
    say(f"report: {page}")


@app.command()
def doctor() -> None:
    """Print versions, device, memory, cache, and what is missing."""
    from springback.cli.doctor import diagnose

    findings = diagnose()
    emit(findings=[finding._asdict() for finding in findings])
    width = max(len(f.name) for f in findings)
    for finding in findings:
        mark = "ok" if finding.ok else "!!"
        say(f"{mark}  {finding.name:<{width}}  {finding.value}")
        if finding.advice and not finding.ok:
            say(f"    {'':<{width}}  -> {finding.advice}")


def _study_of(settings: type[Settings], words: list[str] | None) -> tuple[dict[str, Any], bool]:
    """What the study file among a command's words sets, and whether they say ``plan``."""
    from springback.jobs import config

    planned = (words or [])[:1] == ["plan"]
    files = (words or [])[planned:]
    if len(files) > 1:
        raise SpringbackError(f"got {len(files)} study files ({', '.join(files)}); give one")
    if not files:
        return {}, planned
    values = config.read_study(files[0])
    config.build(settings, values, file=files[0])
    return values, planned


#: Commands of which every argument is a path or a name.
_OF_PATHS = ("clean", "compare", "compress", "decompress", "extrapolate", "push", "report", "track")


def _require_named(arguments: list[str]) -> None:
    """Raise for an empty ``--out`` or path, as of a variable that is not set: it would be this
    folder."""
    if "--out=" in arguments or ("--out", "") in pairwise(arguments):
        raise SpringbackError("--out is empty; name a folder, or . for this one")
    command = next((word for word in arguments if not word.startswith("-")), "")
    if command in _OF_PATHS and "" in arguments:
        raise SpringbackError(f"{command} got an empty argument; name a path, or leave it out")


def _warning_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Warnings of ours for people: without the place in the code."""
    if issubclass(category, SpringbackWarning):
        return f"{printable(str(message))}\n"
    return f"{filename}:{lineno}: {category.__name__}: {printable(str(message), lines=True)}\n"


def _fail(text: str) -> NoReturn:
    """End with the one line that says what was at fault."""
    text = " ".join(text.split())
    print(f"error: {text}", file=sys.stderr)
    if OUTPUT.json:
        print(last_line(error=text))
    sys.exit(2)


def main() -> None:
    """Run the command line: errors of ours become one line and exit code 2."""
    arguments = read_output(sys.argv[1:])
    debug = OUTPUT.debug
    # Read when torch starts its threads, so set before anything imports it.  Threads that spin at
    # barriers make a step ten times slower as soon as another process wants a core (docs/log.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    warnings.formatwarning = _warning_line
    if isinstance(sys.stdout, io.TextIOWrapper):  # paths that are not UTF-8, as standard error does
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _require_named(arguments)
        app(args=arguments, prog_name="springback")
    except SystemExit as end:
        if OUTPUT.json:
            print(last_line(**({"error": "see standard error"} if end.code else {})))
        raise
    except SpringbackError as error:
        if debug:
            raise
        _fail(str(error))
    except Exception as error:
        if isinstance(error, ImportError) and not debug:
            command = next((a for a in arguments if not a.startswith("-")), "")
            if missing := missing_extra(error, command):
                _fail(str(missing))
        from springback.results.store import full_disk

        read_only = isinstance(error, OSError) and error.errno == errno.EROFS
        if debug or not (read_only or full_disk(error)):
            raise
        do = (
            "choose another folder"
            if read_only
            else "free some space and run the same command again"
        )
        _fail(f"{printable(' '.join(str(error).split()))}; {do}")
