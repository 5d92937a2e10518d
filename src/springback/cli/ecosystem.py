"""``serve``, ``lm-eval``, ``track`` and ``push``: ways to other people's software."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from springback.cli.flags import FIRST, take, with_settings
from springback.cli.say import say
from springback.errors import MissingExtraError
from springback.integrations.server.settings import ServeSettings


@with_settings(ServeSettings, first="host port name engine", leave_out="token")
def serve(
    given: dict[str, Any],
    model: Annotated[str, typer.Argument(help="Boosted or plain folder, hub id, built-in name.")],
    token: Annotated[
        str | None,
        typer.Option(
            envvar="SPRINGBACK_TOKEN",
            help="What clients give as API key; better by SPRINGBACK_TOKEN, which no ps shows.",
            show_default=False,
            rich_help_panel=FIRST,
        ),
    ] = None,
) -> None:
    """Serve a model as OpenAI's API: chat, completions, streaming, models, /health, /metrics.

    A boosted folder is decoded contrastively, by vLLM where that is installed, else by springback
    itself. Ends on Ctrl-C or SIGTERM when running answers are done.
    """
    from springback.integrations.server.settings import check, engine_of
    from springback.models.names import require_decoder

    settings = replace(take(ServeSettings, given), token=token)
    check(settings)
    require_decoder(model, settings)
    if engine_of(settings) == "vllm":
        from springback.integrations.vllm.launch import serve as launch

        launch(model, settings, lambda text: say(text, err=True))
        return
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(str(error.name), "serve", "springback serve") from error
    from springback.integrations.server.run import serve as run

    run(model, settings, lambda text: say(text, err=True))


def lm_eval(context: typer.Context) -> None:
    """lm-eval's own command line with one more model: --model springback.

    springback lm-eval run --model springback --model_args pretrained=FOLDER --tasks arc_easy

    Also --chat-template-args and --system-in-user, as in generate.
    """
    try:
        import lm_eval  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("lm-eval", "lm-eval", "springback lm-eval") from error
    from springback.integrations.lm_eval import main

    main(context.args)


def track(
    folder: Annotated[Path, typer.Argument(help="Folder with a result.json.")],
    to: Annotated[
        list[str],
        typer.Option(
            help="mlflow[:URI], tensorboard[:FOLDER] or wandb[:PROJECT]; may be repeated."
        ),
    ],
) -> None:
    """Log a finished audit or boost to MLflow, TensorBoard or Weights & Biases (offline)."""
    from springback.integrations.trackers import track as run

    for line in run(folder, to):
        say(line)


def push(
    folder: Annotated[Path, typer.Argument(help="Model, adapter or boosted folder.")],
    repository: Annotated[str, typer.Argument(help="org/name on the Hugging Face Hub.")],
    public: Annotated[bool, typer.Option("--public", help="Default: private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; made if not there.")] = None,
) -> None:
    """Upload a folder to the Hugging Face Hub, with your own login (hf auth login)."""
    from springback.integrations.hub_upload import push as run

    say(run(folder, repository, private=not public, revision=revision))
