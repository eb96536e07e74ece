"""The HTTP suspect: asks, repeats what failed, and turns answers into records.

The questions are harmless to repeat, so a failed attempt is followed by another; each one is recorded. Nothing is
asked again once a complete answer was received, whatever that answer says.
"""

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from auditor.errors import (
    SuspectAnswerError,
    SuspectError,
    SuspectRefusedError,
    SuspectThrottledError,
    SuspectUnavailableError,
    UsageError,
)
from auditor.evidence.reading import Reading
from auditor.records import Inputs, SuspectId
from auditor.suspects.base import Attempt, Description, Exchange, RawReply, Suspect, may_be_charged
from auditor.suspects.http.addresses import parse_address, retry_after_s, secrets_of
from auditor.suspects.http.dialects import dialect_of, filled_headers
from auditor.suspects.http.pace import Pace, StoppedError
from auditor.suspects.http.profile import Profile
from auditor.suspects.http.transport import Failure, Received, Transport

DEFAULT_TIMEOUT_S = 30.0
DEFAULT_ATTEMPTS = 4
DEFAULT_BATCH = 64
MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_WAIT_S = 60.0
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 8.0
RETRIED_STATUS = frozenset({429, 502, 503, 504})
REFUSED_STATUS = frozenset({401, 403, 407, 451})
REJECTED_STATUS = frozenset({400, 406, 411, 413, 415, 422})
ABSENT_STATUS = frozenset({404, 405, 410, 501})

logger = logging.getLogger(__name__)


class HttpSuspect(Suspect):
    """A prediction service that speaks the contract of ``auditor serve``, or what a profile describes.

    Args:
        base_url: http or https address that the profile's path is appended to; credentials and query in it are sent,
            never shown.
        profile: how the service is spoken to; None for the contract of ``auditor serve``.
        classes: names of the task's classes in label order, for services that answer with names.
        account: under which account is asked, for the record.
        proxy: address of the proxy to go through; the environment's proxies are not used.
        timeout_s: longest time for one whole attempt.
        max_attempts: attempts per question before it counts as unanswered.
        batch_size: most inputs per request; a smaller limit that the service declares is respected.
        concurrency: most requests at a time; a smaller limit of the profile is respected.
        max_inputs: most inputs that may be charged, those of lost answers included; None for no limit.
        max_body_bytes: largest answer that is read, after decompression.
        sleep: waits between attempts, and between requests where the profile limits their rate; None waits in a way
            that :meth:`cancel` ends.
        jitter: returns a number in [0, 1) that spreads the waits.
        now_s: seconds since the epoch, for Retry-After dates.
        steady_s: seconds of a clock that never steps back, for the rate limit.

    Raises:
        UsageError: ``base_url`` is not such an address, a limit is not positive, or a secret of the profile is not in
            the environment.
    """

    def __init__(
        self,
        base_url: str,
        *,
        profile: Profile | None = None,
        classes: tuple[str, ...] = (),
        account: str = "",
        proxy: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_attempts: int = DEFAULT_ATTEMPTS,
        batch_size: int = DEFAULT_BATCH,
        max_body_bytes: int = MAX_BODY_BYTES,
        concurrency: int = 1,
        max_inputs: int | None = None,
        sleep: Callable[[float], None] | None = None,
        jitter: Callable[[], float] = random.random,
        now_s: Callable[[], float] = time.time,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        if not timeout_s > 0 or min(max_attempts, batch_size, max_body_bytes, concurrency) < 1:
            raise UsageError("timeout, attempts, batch size, concurrency and body limit must be positive")
        self._target = parse_address(base_url)
        headers, secrets = filled_headers(profile)

        def connect() -> Transport:
            return Transport(
                self._target,
                timeout_s=timeout_s,
                max_body_bytes=max_body_bytes,
                headers=headers,
                secrets=(*secrets, *secrets_of(self._target)),
                proxy=proxy,
            )

        self._connect = connect
        self._transport = connect()
        # A session belongs to one thread at a time; each lane takes an idle one.
        self._transports, self._idle = [self._transport], [self._transport]
        self.dialect = dialect_of(profile, classes=classes)
        self._account = account
        self._certificate_sha256 = ""
        self._max_attempts = max_attempts
        self._batch_size = batch_size if profile is None else min(batch_size, profile.limits.batch_size)
        rate = 0.0 if profile is None else profile.limits.requests_per_minute
        limit = 0 if profile is None else profile.limits.concurrency
        self._concurrency = min(concurrency, limit or concurrency)
        if self._concurrency < concurrency:
            logger.warning(
                "%s: the profile permits %d requests at a time, not %d", self._target.uri, limit, concurrency
            )
        self._n_left = max_inputs
        self._counting = threading.Lock()
        self._pace = Pace(
            lanes=self._concurrency, spacing_s=60.0 / rate if rate else 0.0, sleep=sleep, steady_s=steady_s
        )
        self._jitter = jitter
        self._now_s = now_s
        self.n_requests = 0
        """Requests sent so far, repeated ones included."""
        self.latest: Received | None = None
        """The last complete answer."""

    @property
    def batch_size(self) -> int:
        """Largest number of inputs per request."""
        return self._batch_size

    def reading(self) -> Reading:
        """Return how the service's own labels are read, without any map."""
        return self.dialect.plain_reading()

    def read_with(self, reading: Reading) -> None:
        """Read all later answers so."""
        self.dialect.reading = reading

    @property
    def concurrency(self) -> int:
        """Most requests at a time."""
        return self._concurrency

    def reserve(self, n_inputs: int) -> bool:
        """Set aside what asking so many inputs once may cost; False where the budget does not permit it."""
        with self._counting:
            if self._n_left is None:
                return True
            if n_inputs > self._n_left:
                logger.warning("%s: the budget does not permit %d more inputs", self._target.uri, n_inputs)
                return False
            self._n_left -= n_inputs
            return True

    def _give_back(self, n_inputs: int) -> None:
        with self._counting:
            self._n_left = None if self._n_left is None else self._n_left + n_inputs

    def cancel(self) -> None:
        """End requests that are under way in other threads; nothing is asked after it."""
        self._pace.stop()
        for transport in self._transports:
            transport.cancel()

    def close(self) -> None:
        """Close pooled connections."""
        for transport in self._transports:
            transport.close()

    def describe(self) -> Description:
        """Return what the service says about itself; one without a description is known by its address alone."""
        path = self.dialect.describe_path
        if path is None:
            address, certificate_sha256 = self._transport.look()
            return Description(
                suspect=replace(
                    self._suspect_id(None, sha256="", name=""), address=address, certificate_sha256=certificate_sha256
                )
            )
        received, attempts = self._ask("GET", path, None)
        extra = {"failed_attempts": str(len(attempts))} if attempts else {}
        if received.status in ABSENT_STATUS:
            return Description(suspect=self._suspect_id(received, sha256="", name=""), extra=extra)
        self._check_status(received.status, path=path)
        try:
            declared = self.dialect.description(received.body)
        except SuspectAnswerError as error:
            raise SuspectAnswerError(f"{self._target.uri}: {error}") from error
        self._batch_size = min(self._batch_size, declared.max_batch or self._batch_size)
        return Description(
            suspect=self._suspect_id(received, sha256=declared.sha256, name=declared.name),
            input_shape=declared.input_shape,
            n_labels=declared.n_labels,
            extra={"answers": declared.answers, **extra},
        )

    def _suspect_id(self, received: Received | None, *, sha256: str, name: str) -> SuspectId:
        reading = self.dialect.reading
        return SuspectId(
            uri=self._target.uri,
            kind="http",
            artefact_sha256=sha256,
            address="" if received is None else received.address,
            declared_name=name,
            profile=self.dialect.name,
            profile_sha256=self.dialect.sha256,
            reading="" if reading is None else reading.as_text(),
            certificate_sha256="" if received is None else received.certificate_sha256,
            account=self._account,
        )

    def _predict(self, inputs: Inputs) -> Exchange:
        asked = self.dialect.question(inputs)
        received, attempts = self._ask(
            asked.method, asked.path, asked.body, content_type=asked.content_type, n_inputs=len(inputs)
        )
        try:
            self._check_status(received.status, path=asked.path)
            self._notice(received)
            answers = self.dialect.answers(received.body)
        except SuspectError as error:
            error.attempts, error.body, error.wire = attempts, received.body or None, received.wire
            raise
        reply = RawReply(
            answers=answers,
            body=received.body,
            elapsed_ms=received.elapsed_ms,
            server_date=received.server_date,
            status=received.status,
            address=received.address,
            certificate_sha256=received.certificate_sha256,
            headers=received.headers,
            certificates=received.certificates,
            redirects=received.redirects,
        )
        return Exchange(reply=reply, failed_attempts=attempts)

    def _notice(self, received: Received) -> None:
        shown = received.certificate_sha256
        if self._certificate_sha256 and shown and shown != self._certificate_sha256:
            logger.warning("%s: shows another TLS certificate than before", self._target.uri)
        self._certificate_sha256 = shown

    def _ask(
        self, method: str, path: str, body: bytes | None, *, content_type: str = "application/json", n_inputs: int = 0
    ) -> tuple[Received, tuple[Attempt, ...]]:
        # urllib3 can retry too, but keeps no record of each attempt's reason and wait.
        attempts: list[Attempt] = []
        served = 0
        for number in range(1, self._max_attempts + 1):
            try:
                outcome = self._attempt(method, path, body, content_type=content_type, served=served)
            except SuspectError as error:
                error.attempts = tuple(attempts)
                raise
            self.latest = outcome if isinstance(outcome, Received) else self.latest
            if isinstance(outcome, Received) and outcome.status not in RETRIED_STATUS:
                return outcome, tuple(attempts)
            text = outcome.text if isinstance(outcome, Failure) else f"HTTP {outcome.status}"
            wait_s = 0.0
            if number < self._max_attempts:
                wait_s = self._wait_s(number, outcome)
            if isinstance(outcome, Received):
                # Who asks one request for patience means all of them.
                asked_s = retry_after_s(outcome.retry_after, now_s=self._now_s()) or 0.0
                served = self._pace.pause(wait_s or min(asked_s, MAX_WAIT_S))
            if number < self._max_attempts:
                self._wait(wait_s, attempts)
            status, wire = (outcome.status, outcome.wire) if isinstance(outcome, Received) else (None, None)
            attempts.append(Attempt(error=text, waited_ms=round(wait_s * 1000), status=status, wire=wire))
            # The caller set aside one asking; one that may have been charged needs another.
            charged = may_be_charged(attempts[-1])
            if number < self._max_attempts and charged and not self.reserve(n_inputs):
                raise SuspectUnavailableError(
                    f"{self._target.uri}: no answer ({text}), and the budget permits no other attempt",
                    attempts=attempts,
                )
            if number == self._max_attempts and not charged:
                self._give_back(n_inputs)
        reasons = ", ".join(f"{n} × {text}" for text, n in Counter(attempt.error for attempt in attempts).items())
        message = f"{self._target.uri}: no answer ({reasons})"
        if attempts[-1].error == "HTTP 429":
            raise SuspectThrottledError(message, attempts=attempts)
        raise SuspectUnavailableError(message, attempts=attempts)

    def _attempt(
        self, method: str, path: str, body: bytes | None, *, content_type: str, served: int
    ) -> Received | Failure:
        try:
            self._pace.enter(served=served)
        except StoppedError as error:
            raise self._stopped() from error
        outcome: Received | Failure | None = None
        try:
            self.n_requests += 1
            with self._idle_transport() as transport:
                outcome = transport.attempt(method, path, body, content_type=content_type)
            return outcome
        finally:
            answered = isinstance(outcome, Received) and outcome.status not in RETRIED_STATUS
            self._pace.leave(answered=answered, served=served)

    @contextmanager
    def _idle_transport(self) -> Iterator[Transport]:
        try:
            transport = self._idle.pop()
        except IndexError:
            transport = self._connect()
            self._transports.append(transport)
        try:
            yield transport
        finally:
            self._idle.append(transport)

    def _wait(self, wait_s: float, attempts: list[Attempt]) -> None:
        try:
            self._pace.wait(wait_s)
        except StoppedError as error:
            stopped = self._stopped()
            stopped.attempts = tuple(attempts)
            raise stopped from error

    def _stopped(self) -> SuspectUnavailableError:
        return SuspectUnavailableError(f"{self._target.uri}: the question was called off")

    def _wait_s(self, number: int, outcome: Received | Failure) -> float:
        if isinstance(outcome, Received):
            asked_s = retry_after_s(outcome.retry_after, now_s=self._now_s())
            if asked_s is not None:
                return min(asked_s, MAX_WAIT_S)
        backoff_s = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** (number - 1))
        return backoff_s * (0.5 + 0.5 * self._jitter())

    def _check_status(self, status: int, *, path: str) -> None:
        if 200 <= status < 300:
            return
        message = f"{self._target.uri}{path}: HTTP {status}"
        if status in REFUSED_STATUS:
            raise SuspectRefusedError(f"{message}, the service refuses")
        if status in REJECTED_STATUS:
            raise SuspectAnswerError(f"{message}, the service does not accept the question")
        raise SuspectUnavailableError(f"{message}, no prediction service answers here")
