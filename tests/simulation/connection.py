"""One TCP connection between a simulated process and the server: bytes in order, or an end.

Rule: what was written arrives in order or, from the cut on, not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.network import SAME_MOMENT_S, Line
from tests.simulation.process import OUTSIDE, Process

if TYPE_CHECKING:
    from tests.simulation.client import SimulatedClient
    from tests.simulation.server import Server


class Connection:
    """See the module. For the client it is the socket's transport.

    Args:
        server: at the other end.
        client: at this end.
        process: whose it is.
    """

    def __init__(self, server: Server, client: SimulatedClient, process: Process) -> None:
        self.server = server
        self.process = process
        self.open = True
        """As the server sees it."""
        self.lost = False
        """As the client sees it."""
        self.client = client
        self._there = Line()
        self._back = Line()
        self._network = server.network
        server.attach(self)

    # ---- the client's end

    def write(self, data: bytes) -> None:
        """Send protocol lines."""
        if not self.lost and not self.process.dead:
            self._network.loop.call_at(self._at(self._there), self._arrive, data, context=OUTSIDE.context)

    def is_closing(self) -> bool:
        """Whether it is no use writing."""
        return self.lost

    def get_write_buffer_size(self) -> int:
        """Everything goes out at once."""
        return 0

    def abort(self) -> None:
        """The client ends it."""
        self.lost = True
        self.close()

    def slow(self, seconds: float) -> None:
        """Nothing gets through for a while, in either direction."""
        until = self._network.loop.time() + seconds
        self._there.at = max(self._there.at, until)
        self._back.at = max(self._back.at, until)

    def _at(self, line: Line) -> float:
        line.at = max(self._network.loop.time() + self._network.latency(), line.at + SAME_MOMENT_S)
        return line.at

    # ---- the server's end

    def _arrive(self, data: bytes) -> None:
        place = 0
        while self.open and place < len(data):
            end = data.index(b"\r\n", place)
            words = data[place:end].split(b" ")
            place = self._command(words, data, end + 2)

    def _command(self, words: list[bytes], data: bytes, place: int) -> int:
        server, verb = self.server, words[0]
        if verb in (b"PUB", b"HPUB"):
            size = int(words[-1])
            head = int(words[-2]) if verb == b"HPUB" else 0
            subject, reply = words[1].decode(), words[2].decode()
            server.published(self, subject, reply, data[place : place + head], data[place + head : place + size])
            return place + size + 2
        if verb == b"SUB":
            server.subscriptions.add(self, int(words[-1]), words[1].decode())
        elif verb == b"UNSUB":
            server.subscriptions.remove(self, int(words[1]))
        else:
            self.pong()
        return place

    def pong(self) -> None:
        """Answer a ping, after everything that was sent before."""
        self._network.loop.call_at(self._at(self._back), self._ponged, context=self.process.context)

    def _ponged(self) -> None:
        if not self.lost:
            self.client.ponged()

    def deliver(self, sid: int, subject: str, reply: str, data: bytes, headers: bytes) -> None:
        """Send a message to the client."""
        if self.open:
            self._network.loop.call_at(
                self._at(self._back), self._delivered, sid, subject, reply, data, headers, context=self.process.context
            )

    def _delivered(self, sid: int, subject: str, reply: str, data: bytes, headers: bytes) -> None:
        if not self.lost:
            self.client.delivered(sid, subject.encode(), reply.encode(), data, headers or None)

    # ---- its end

    def cut(self) -> None:
        """Break it: what is under way is lost, both ends find out."""
        if self.open:
            self.close()
            self._network.loop.call_later(self._network.latency(), self._found_out, context=self.process.context)

    def _found_out(self) -> None:
        if not self.lost:
            self.lost = True
            self.client.connection_lost(self)

    def close(self) -> None:
        """The server reads no more from it."""
        if self.open:
            self.open = False
            self.server.detach(self)

    def finish(self) -> None:
        """The client closes it: everything that was written arrives before the end."""
        self.lost = True
        self._network.loop.call_at(self._at(self._there), self.close, context=OUTSIDE.context)

    def orphan(self) -> None:
        """The process has died: what it had written still arrives, perhaps not the end of it."""
        loop, line = self._network.loop, self._there
        left = max(0.0, line.at - loop.time())
        loop.call_later(left * self._network.rng.random() * 1.2 + SAME_MOMENT_S, self.close, context=OUTSIDE.context)
