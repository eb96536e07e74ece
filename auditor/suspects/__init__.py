"""Adapters to the black boxes under test."""

from pathlib import Path

from auditor.errors import UsageError
from auditor.suspects.base import Suspect


def open_suspect(
    *,
    endpoint: str | None = None,
    model: Path | None = None,
    timeout_s: float | None = None,
    max_attempts: int | None = None,
    batch_size: int | None = None,
    profile: str | None = None,
    classes: tuple[str, ...] = (),
    account: str = "",
    proxy: str | None = None,
) -> Suspect:
    """Return the adapter for a service or for a model file; None leaves a setting at the adapter's default.

    Args:
        endpoint: base URL of a prediction service.
        model: folder or ``.safetensors`` file.
        timeout_s: longest time for one attempt; a model file has none.
        max_attempts: attempts per question; a model file needs one.
        batch_size: most inputs per question.
        profile: name of a built-in endpoint profile, or a file whose name ends in ``.toml``.
        classes: names of the task's classes in label order, for services that answer with names.
        account: under which account an endpoint is asked, for the record.
        proxy: address of the proxy that leads to an endpoint.

    Raises:
        UsageError: not exactly one of ``endpoint`` and ``model``, a limit is not positive, or a malformed profile.
        SuspectLoadError: ``model`` is not a model this program opens.
    """
    if batch_size is not None and batch_size < 1:
        raise UsageError("the batch size must be positive")
    if endpoint is not None and model is None:
        from auditor.suspects.http import adapter
        from auditor.suspects.http.profile import load

        return adapter.HttpSuspect(
            endpoint,
            profile=None if profile is None else load(profile),
            classes=classes,
            account=account,
            proxy=proxy,
            timeout_s=adapter.DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s,
            max_attempts=adapter.DEFAULT_ATTEMPTS if max_attempts is None else max_attempts,
            batch_size=adapter.DEFAULT_BATCH if batch_size is None else batch_size,
        )
    if model is not None and endpoint is None:
        from auditor.suspects import torch_file

        return torch_file.TorchFileSuspect(
            model, batch_size=torch_file.DEFAULT_BATCH if batch_size is None else batch_size
        )
    raise UsageError("name exactly one suspect: an endpoint or a model file")
