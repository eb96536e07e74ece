"""``auditor serve``: one model file as an HTTP prediction service."""

from pathlib import Path
from typing import Annotated

import typer

from auditor.errors import DISTRIBUTION, MissingPartError, UsageError


def serve(
    model: Annotated[Path, typer.Argument(help="Folder or model.safetensors, with its model.json beside it.")],
    host: Annotated[str, typer.Option(help="Address to listen on; there is no authentication.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0 takes a free one.")] = 8000,
    labels_only: Annotated[bool, typer.Option("--labels-only", help="Answer with labels and nothing else.")] = False,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Answer with the K best labels and their scores; default: all scores.")
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Most inputs per request.")] = 256,
    name: Annotated[str | None, typer.Option(help="What the service calls itself; default: the folder's name.")] = None,
    guard: Annotated[
        Path | None, typer.Option(help="Sealed key set of `auditor guard`: answers are marked, client by client.")
    ] = None,
    client_header: Annotated[
        str, typer.Option(help="Request header that names the client; without a known one an answer is refused.")
    ] = "X-Client-Id",
    query_log: Annotated[
        Path | None, typer.Option(help="File that keeps client and SHA-256 of every guarded query, one line each.")
    ] = None,
    identity: Annotated[
        Path | None, typer.Option(help="age identity file for an encrypted guard, or AUDITOR_PASSPHRASE.")
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, help="Requests computed at the same time, each on one CPU thread.")
    ] = 1,
) -> None:
    """Serve a model over HTTP until SIGTERM or Ctrl-C; prints one line when it is ready."""
    if labels_only and top_k is not None:
        raise UsageError("--labels-only and --top-k contradict each other")
    from auditor import serving
    from auditor.cli import console
    from auditor.models import predict
    from auditor.records import Inputs
    from auditor.wrapped import load

    try:
        import torch
    except ImportError as error:
        raise MissingPartError(f"serving a model needs PyTorch: pip install '{DISTRIBUTION}[train]'") from error

    # Several computing threads per request slow each other down as soon as anything else runs on the machine.
    torch.set_num_threads(1)
    loaded = load(model)
    description = loaded.description
    mode = serving.AnswerMode.SCORES
    if labels_only:
        mode = serving.AnswerMode.LABELS
    elif top_k is not None:
        mode = serving.AnswerMode.TOP_K
    shown = name or (model if model.is_dir() else model.parent).resolve().name

    def probabilities(inputs: Inputs) -> "serving.Outputs":
        return predict(loaded.network, inputs)

    answers_of = None
    if guard is not None:
        from auditor import casefile
        from auditor.guards.desk import open_desk

        desk = open_desk(
            guard,
            model_sha256=description.weights_sha256,
            classes=description.classes,
            header=client_header,
            log=query_log,
            unlocks=casefile.unlocks(identity),
        )
        answers_of = serving.PerClient(header=desk.header, knows=desk.knows, answer=desk.answer)
    elif query_log is not None or identity is not None:
        raise UsageError("--query-log and --identity go with a guard; name it with --guard")
    app = serving.create_app(
        probabilities,
        per_client=answers_of,
        name=shown,
        classes=description.classes,
        input_shape=description.input_shape,
        answers=mode,
        top_k=top_k or 1,
        max_batch=max_batch,
        workers=threads,
    )
    serving.serve(app, host=host, port=port, ready=lambda url: console.say(f"serving {shown} at {url}"))
