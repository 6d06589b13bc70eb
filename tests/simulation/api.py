"""The JetStream API of the simulated server, as far as the mesh calls it.

Rule: answers are those of a real server, error codes included; a call about a stream that is not there says so.
"""

from __future__ import annotations

import base64
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from tests.simulation.network import Line
from tests.simulation.stream import Away, Message, Stream, stamp

if TYPE_CHECKING:
    from tests.simulation.server import Server

Body = dict[str, Any]


class ApiError(Exception):
    """`args`: the server's code, its text."""


_BY_HOLDER = ("CONSUMER.MSG.NEXT", "DIRECT.GET")
"""Calls that only the server that has the stream listens to."""
_NO_STREAM = (10059, "stream not found")
_NO_MESSAGE = (10037, "no message found")


class Api:
    """Answers `$JS.API.…`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._calls = {
            "STREAM.CREATE": self._create,
            "STREAM.UPDATE": self._update,
            "STREAM.INFO": self._info,
            "STREAM.DELETE": self._delete,
            "STREAM.PURGE": self._purge,
            "STREAM.MSG.GET": self._message,
            "CONSUMER.CREATE": self._create_consumer,
            "CONSUMER.DELETE": self._delete_consumer,
            "CONSUMER.NAMES": self._names,
        }

    def call(self, subject: str, reply: str, data: bytes) -> None:
        """One call."""
        path = subject.removeprefix("$JS.API.")
        if self._away(path, subject, reply, data):
            return None
        if path.startswith("CONSUMER.MSG.NEXT."):
            return self._pull(path.removeprefix("CONSUMER.MSG.NEXT."), reply, data)
        if path.startswith("DIRECT.GET."):
            return self._direct(path.removeprefix("DIRECT.GET."), reply, data)
        if path == "INFO":
            return self._server.send(reply, b"{}", b"")
        kind = next((kind for kind in self._calls if path.startswith(kind + ".")), None)
        if kind is None:
            return self._server.send(reply, b"", b"NATS/1.0 503\r\n\r\n")
        body: Body = msgspec.json.decode(data) if data else {}
        if not kind.endswith(("INFO", "GET", "NAMES")):
            self._server.trace(f"  {path} {body.get('filter', '')} {body.get('seq', '')}")
        try:
            answer = self._calls[kind](path.removeprefix(kind + "."), body)
        except ApiError as error:
            answer = {"error": {"code": 400, "err_code": error.args[0], "description": error.args[1]}}
        if reply:
            self._server.send(reply, msgspec.json.encode(answer), b"")

    def _away(self, path: str, subject: str, reply: str, data: bytes) -> bool:
        """Whether it is about a stream whose server is away: then only what the other servers know is answered."""
        kind = next((kind for kind in (*self._calls, *_BY_HOLDER) if path.startswith(kind + ".")), "")
        stream = self._server.streams.get(path.removeprefix(kind + ".").split(".")[0])
        if stream is None or not stream.away or kind == "CONSUMER.NAMES":
            return False
        if kind == "STREAM.DELETE":
            self._delete(stream.name, {})
        elif kind in _BY_HOLDER or stream.away is Away.FROZEN:
            self._server.unanswered(stream, reply, self.call, subject, reply, data)
        return True

    def _stream(self, name: str) -> Stream:
        found = self._server.streams.get(name)
        if found is None:
            raise ApiError(*_NO_STREAM)
        return found

    # ---- streams

    def _create(self, name: str, body: Body) -> Body:
        server = self._server
        config = self._limited(body)
        stream = server.streams.get(name)
        if stream is None:
            stream = server.streams[name] = Stream(config, stamp(server.wall_ns()))
        elif stream.config != config:
            raise ApiError(10058, "stream name already in use with a different configuration")
        return stream.info()

    def _limited(self, config: Body) -> Body:
        if config["storage"] == "memory" and config.get("allow_atomic"):
            return {**config, "max_bytes": min(config["max_bytes"], self._server.lanes_bytes_max)}
        return config

    def _update(self, name: str, body: Body) -> Body:
        stream = self._stream(name)
        stream.configure(self._limited(body))
        return stream.info()

    def _info(self, name: str, body: Body) -> Body:
        return self._stream(name).info()

    def _delete(self, name: str, body: Body) -> Body:
        stream = self._stream(name)
        for consumer in stream.consumers.values():
            consumer.delete(b"409 Consumer Deleted")
        del self._server.streams[name]
        return {"success": True}

    def _purge(self, name: str, body: Body) -> Body:
        return {"success": True, "purged": self._stream(name).purge(body.get("filter", ""), body.get("seq", 0))}

    def _message(self, name: str, body: Body) -> Body:
        stream = self._stream(name)
        if "last_by_subj" in body:
            found = stream.messages.get(stream.last_of(body["last_by_subj"]))
        elif "next_by_subj" in body:
            found = next(stream.after(body["next_by_subj"], body.get("seq", 1)), None)
        else:
            found = stream.messages.get(body["seq"])
        if found is None:
            raise ApiError(*_NO_MESSAGE)
        shown = {"subject": found.subject, "seq": found.sequence, "time": stamp(found.time_ns), "data": _b64(found.data)}
        return {"message": {**shown, "hdrs": _b64(found.headers)}}

    # ---- consumers

    def _create_consumer(self, path: str, body: Body) -> Body:
        stream = self._stream(path.split(".")[0])
        config = body["config"]
        if config["name"] in stream.consumers:
            if stream.consumers[config["name"]].filter != config["filter_subject"]:
                raise ApiError(10148, "consumer already exists")
            return {"num_pending": 0}
        return {"num_pending": self._server.consumer(stream, config).pending}

    def _delete_consumer(self, path: str, body: Body) -> Body:
        name, _, consumer = path.partition(".")
        found = self._stream(name).consumers.pop(consumer, None)
        if found is None:
            raise ApiError(10014, "consumer not found")
        found.delete(b"409 Consumer Deleted")
        return {"success": True}

    def _names(self, name: str, body: Body) -> Body:
        names = list(self._stream(name).consumers)
        return {"total": len(names), "consumers": names[body.get("offset", 0) :]}

    def _pull(self, path: str, reply: str, data: bytes) -> None:
        name, _, consumer = path.partition(".")
        stream = self._server.streams.get(name)
        found = stream.consumers.get(consumer) if stream is not None else None
        if found is None:
            return self._server.send(reply, b"", b"NATS/1.0 503\r\n\r\n")
        body: Body = msgspec.json.decode(data)
        found.pull(reply, body["batch"], body.get("expires", 0), body.get("idle_heartbeat", 0))

    # ---- direct get

    def _direct(self, path: str, reply: str, data: bytes) -> None:
        name, _, subject = path.partition(".")
        stream = self._server.streams.get(name)
        if stream is None or not stream.config["allow_direct"]:
            return self._server.send(reply, b"", b"NATS/1.0 503\r\n\r\n")
        if subject:
            found = stream.messages.get(stream.last_of(subject))
            return self._answer_direct(stream, reply, [found] if found is not None else [], end=False)
        body: Body = msgspec.json.decode(data)
        batch = list(islice(stream.after(body["next_by_subj"], body.get("seq", 1)), body.get("batch", 1)))
        self._answer_direct(stream, reply, batch, end=True)

    def _answer_direct(self, stream: Stream, reply: str, found: list[Message], *, end: bool) -> None:
        line = Line()  # the parts of one answer come in order
        for message in found:
            head = (
                f"NATS/1.0\r\nNats-Stream: {stream.name}\r\nNats-Subject: {message.subject}\r\nNats-Sequence: {message.sequence}\r\n"
                f"Nats-Time-Stamp: {stamp(message.time_ns)}\r\n\r\n"
            )
            self._server.send(reply, message.data, head.encode(), after=line)
        if not found:
            self._server.status(reply, b"404 Message Not Found", after=line)
        elif end:
            self._server.status(reply, b"204 EOB", after=line)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
