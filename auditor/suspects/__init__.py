"""Adapters to the black boxes under test."""

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.errors import UsageError
from auditor.suspects.base import LOCAL_BATCH, LocalSuspect, Suspect

if TYPE_CHECKING:
    from auditor.suspects.http.profile import Profile


MAX_BUDGET = 10**9


def open_suspect(
    *,
    endpoint: str | None = None,
    model: Path | None = None,
    timeout_s: float | None = None,
    max_attempts: int | None = None,
    batch_size: int | None = None,
    concurrency: int = 1,
    max_inputs: int | None = None,
    profile: str | None = None,
    classes: tuple[str, ...] = (),
    account: str = "",
    proxy: str | None = None,
    allow_python: bool = False,
) -> Suspect:
    """Return the adapter for a service or for a model file; None leaves a setting at the adapter's default.

    Args:
        endpoint: base URL of a prediction service.
        model: folder or ``.safetensors``, ``.onnx``, ``.skops``, ``.pt2``, ``.ts`` or ``.pt`` file, or
            ``python:module:function``.
        timeout_s: longest time for one attempt; a model file has none.
        max_attempts: attempts per question; a model file needs one.
        batch_size: most inputs per question.
        concurrency: most requests to an endpoint at a time; a model file is asked by one.
        max_inputs: most inputs that an endpoint may charge, those of lost answers included; None for no limit.
        profile: name of a built-in endpoint profile, or a file whose name ends in ``.toml``.
        classes: names of the task's classes in label order, for services that answer with names.
        account: under which account an endpoint is asked, for the record.
        proxy: address of the proxy that leads to an endpoint.
        allow_python: permits suspects whose opening runs code of their author.

    Raises:
        UsageError: not exactly one of ``endpoint`` and ``model``, a limit is not positive, a malformed profile, or a
            proxy that is no address.
        SuspectLoadError: ``model`` is not a model this program opens, or not without ``allow_python``.
        MissingPartError: the library that opens such a model is not installed.
    """
    if batch_size is not None and batch_size < 1:
        raise UsageError("the batch size must be positive")
    if endpoint is not None and model is None:
        from auditor.suspects.http import adapter
        from auditor.suspects.http.addresses import check_proxy
        from auditor.suspects.http.profile import load

        check_proxy(proxy)
        return adapter.HttpSuspect(
            endpoint,
            profile=None if profile is None else load(profile),
            classes=classes,
            account=account,
            proxy=proxy,
            timeout_s=adapter.DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s,
            max_attempts=adapter.DEFAULT_ATTEMPTS if max_attempts is None else max_attempts,
            batch_size=adapter.DEFAULT_BATCH if batch_size is None else batch_size,
            concurrency=concurrency,
            max_inputs=max_inputs,
        )
    if model is not None and endpoint is None:
        loaded = _local_profile(profile)
        suspect = _open_model(model, batch_size=batch_size, profile=loaded, classes=classes, allowed=allow_python)
        if loaded is not None:
            suspect.follows(loaded.name, loaded.sha256)
        return suspect
    raise UsageError("name exactly one suspect: an endpoint or a model file")


def affordable(budget: str | None, *, profile: str | None, max_queries: int | None) -> int | None:
    """Return how many questions a budget and a limit permit together, None when there is neither.

    Args:
        budget: amount in the profile's currency, as a decimal number; every question costs its price per query.
        profile: name or file of the profile that states the price.
        max_queries: a limit on questions, or None.

    Raises:
        UsageError: the budget is no amount, or the profile states no price.
    """
    if budget is None:
        return max_queries
    if profile is None:
        raise UsageError("--budget needs a --profile that states price_per_query")
    price, _ = price_of(profile)
    try:
        amount = Decimal(budget)
    except InvalidOperation as error:
        raise UsageError("--budget must be a decimal number") from error
    if not amount.is_finite() or amount < 0 or amount > MAX_BUDGET:
        raise UsageError(f"--budget must be an amount from 0 to {MAX_BUDGET}")
    if price <= 0:
        raise UsageError("the profile states no price_per_query, so that no budget can be kept")
    permitted = int(amount / price)
    return permitted if max_queries is None else min(permitted, max_queries)


def price_of(profile: str) -> tuple[Decimal, str]:
    """Return what one input costs, and the currency as it is written after an amount, by a profile's name or file."""
    from auditor.suspects.http.profile import load

    limits = load(profile).limits
    return limits.price_per_query, f" {limits.currency}" if limits.currency else ""


def _local_profile(name: str | None) -> "Profile | None":
    if name is None:
        return None
    from auditor.suspects.http.profile import load

    loaded = load(name)
    if not loaded.local:
        raise UsageError(f"profile {loaded.name}: it describes requests to a service; this suspect is a model file")
    return loaded


def _open_model(
    model: Path, *, batch_size: int | None, profile: "Profile | None", classes: tuple[str, ...], allowed: bool
) -> LocalSuspect:
    reading = None if profile is None else profile.reading
    encoding = None if profile is None else profile.encoding
    size = LOCAL_BATCH if batch_size is None else batch_size
    if str(model).startswith("python:"):
        from auditor.suspects.python_function import FunctionSuspect

        return FunctionSuspect(str(model), allowed=allowed, reading=reading, batch_size=size)
    match model.suffix:
        case ".onnx":
            from auditor.suspects.onnx_file import OnnxSuspect

            return OnnxSuspect(model, encoding=encoding, reading=reading, batch_size=size)
        case ".skops":
            from auditor.suspects.sklearn_file import SklearnSuspect

            return SklearnSuspect(model, encoding=encoding, reading=reading, classes=classes, batch_size=size)
        case ".pt2" | ".ts" | ".pt":
            from auditor.suspects.program_file import ProgramSuspect

            return ProgramSuspect(model, allowed=allowed, encoding=encoding, reading=reading, batch_size=size)
    from auditor.suspects.torch_file import TorchFileSuspect

    return TorchFileSuspect(model, reading=reading, batch_size=size)
