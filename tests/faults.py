"""A TCP proxy that does to HTTP what networks, gateways and overloaded services do, from a recorded seed.

It stands between an auditor and a real server, reads whole requests, and then plays one fault per request or none:

``delay``       the answer comes late, so that later questions are answered first
``reset-early`` the connection is reset before the server saw the request
``reset-late``  the server answered, and the connection is reset instead of the answer
``truncated``   half of the answer, then the end of the connection
``corrupt``     a byte of the answer's body is another; the server's Content-Digest tells
``garbled``     the status line is noise
``duplicate``   the answer is sent twice
``storm``       this request and the next ones are told 429 with Retry-After, or 503, and never reach the server
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

FAULTS = ("delay", "reset-early", "reset-late", "truncated", "corrupt", "garbled", "duplicate", "storm")
DECK = (12, 4, 4, 4, 4, 2, 4, 1)
"""How many of each are in a deck: delays are the common case, and a storm hits many requests at once."""
REACHED = frozenset({"", "delay", "reset-late", "truncated", "corrupt", "garbled", "duplicate"})
"""Faults after which the server had answered; the empty text stands for none."""
ANSWERED = frozenset({"", "delay", "duplicate"})
"""Faults after which the client has an answer."""


@dataclass
class FaultyProxy:
    """What the proxy does, and what it did.

    Args:
        upstream: port of the server on loopback.
        seed: of the faults.
        rate: share of requests that meet a fault.
        storm_length: requests that a storm turns away.
    """

    upstream: int
    seed: int
    rate: float
    storm_length: int = 12
    url: str = ""
    log: list[tuple[bytes, str]] = field(default_factory=list)
    """Body and fault of every prediction request that came in whole, in order."""
    _storm: int = 0
    _deck: list[str] = field(default_factory=list)
    """Faults to come, in a drawn order: each kind comes within one deck, however the requests fall."""
    _open: list[asyncio.StreamWriter] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    @property
    def played(self) -> Counter[str]:
        """How often each fault was played; the empty text counts requests without one."""
        return Counter(fault for _, fault in self.log)

    def fault(self, body: bytes) -> str:
        """Choose the fault of the next request, and write it down."""
        if self._storm:
            self._storm -= 1
            chosen = "storm"
        elif not body or self._random.random() >= self.rate:
            chosen = ""
        else:
            if not self._deck:
                self._deck = self._random.sample(FAULTS, counts=DECK, k=sum(DECK))
            chosen = self._deck.pop()
            self._storm = self.storm_length - 1 if chosen == "storm" else 0
        if body:
            self.log.append((body, chosen))
        return chosen

    async def serve_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests."""
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._open.append(writer)
        # Clients that hang up, and servers that do, are what this proxy is about.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head, body = await _message(reader)
                fault = self.fault(body)
                if fault == "storm":
                    writer.write(_patience(self._random))
                    await writer.drain()
                    continue
                if fault == "reset-early":
                    _reset(writer)
                    break
                if upstream is None:
                    upstream = await asyncio.open_connection("127.0.0.1", self.upstream)
                    self._open.append(upstream[1])
                upstream[1].write(head + body)
                answer_head, answer_body = await _message(upstream[0])
                if not await self._answer(writer, fault, answer_head, answer_body):
                    break
        for each in (writer, *(upstream[1:] if upstream else ())):
            each.close()
            with contextlib.suppress(OSError):
                await each.wait_closed()

    def hang_up(self) -> None:
        """End every connection, which lets those who serve them end by themselves."""
        for each in self._open:
            each.transport.abort()

    async def _answer(self, writer: asyncio.StreamWriter, fault: str, head: bytes, body: bytes) -> bool:
        """Send the answer as the fault has it; False when the connection is over."""
        if fault == "delay":
            await asyncio.sleep(self._random.uniform(0.0, 0.03))
        if fault == "reset-late":
            _reset(writer)
            return False
        if fault == "corrupt":
            place = self._random.randrange(len(body))
            body = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        if fault == "garbled":
            head = b"\x00\xff noise" + head[4:]
        whole = head + body
        if fault == "truncated":
            whole = head + body[: len(body) // 2]
        writer.write(whole * (2 if fault == "duplicate" else 1))
        await writer.drain()
        return fault not in ("truncated", "garbled")


@contextlib.contextmanager
def through(upstream_url: str, *, seed: int, rate: float) -> Iterator[FaultyProxy]:
    """Run a proxy before a server from a thread of its own."""
    proxy = FaultyProxy(upstream=int(upstream_url.rpartition(":")[2]), seed=seed, rate=rate)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def begin() -> asyncio.Server:
        return await asyncio.start_server(proxy.serve_client, "127.0.0.1", 0)

    async def end(server: asyncio.Server) -> None:
        server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        proxy.hang_up()
        await asyncio.gather(*others, return_exceptions=True)

    server = asyncio.run_coroutine_threadsafe(begin(), loop).result(timeout=20)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(end(server), loop).result(timeout=20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=20)
        loop.close()


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one request or answer whose length is stated."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    return head, await reader.readexactly(length)


def _patience(source: random.Random) -> bytes:
    if source.random() < 0.5:
        return b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    return b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection so that the other side is told of a reset rather than of an end."""
    connected = writer.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
