"""Bytes that no part of the mesh would send: whole messages broken at random, and records that stand badly among good ones."""

from __future__ import annotations

import random
from collections.abc import Callable

TOKENS = (
    b"null", b"NaN", b"Infinity", b"-1", b"1e999", b"9" * 40, b"9" * 5_000, b"-9223372036854775809", b"18446744073709551616",
    b"[", b"]", b"{", b"}", b",", b'"', b"\\", b'"\\ud800"', b'"\\u0000"', b"\xff\xfe", b"\x00", b"[" * 2_000, b"{}", b"[]",
    b'{"a":1,"a":2}', b'"' + b"x" * 3_000 + b'"', b"true", b"1.5", b'["start"]', b"\r\nPUB x 1\r\n",
)  # fmt: skip
"""What is spliced into good messages."""

BAD_RECORDS = (
    b"null", b"[]", b"{}", b"7", b'"start"', b"[null]", b"[[]]", b"[1]", b'["no such record"]', b'["start"]', b'["accepted","r"]',
    b'{"a":1,"a":2}', b'["start",1,2,3]', b'["finished","r",0,1]', b'["accepted","r",0,' + b"9" * 5_000 + b',"t"]',
    b'["accepted","r",1e999,1,"t"]', b'["accepted","r\xff",0,1,"t"]', b'["start","r","\xff",1]', b'["done","r","s\xc3"]',
    b'["assign","r",0,1,"t","w","s"]', b'["withdraw",0]', b'["registered","w"]', b'["\xff"]', b"[" * 300 + b"]" * 300,
    b'["start","r","w","payload \xff"]', b'["finished","r",0,1,"t",{"n":"\xc3\x28"}]',
)  # fmt: skip
"""JSON values, each of them whole, that are no record of any frame: wrong arity, kind, number, text."""


def broken(rng: random.Random, data: bytes) -> bytes:
    """A message with one to four random changes."""
    for _ in range(rng.randint(1, 4)):
        data = rng.choice(_CHANGES)(rng, data)
    return data


def random_bytes(rng: random.Random, most: int = 400) -> bytes:
    """Anything."""
    return rng.randbytes(rng.randint(0, most))


def _flip(rng: random.Random, data: bytes) -> bytes:
    if not data:
        return b"\xff"
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randint(0, len(data))]


def _drop(rng: random.Random, data: bytes) -> bytes:
    begin, end = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
    return data[:begin] + data[end:]


def _repeat(rng: random.Random, data: bytes) -> bytes:
    begin, end = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
    return data[:end] + data[begin:]


def _splice(rng: random.Random, data: bytes) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + rng.choice(TOKENS) + data[at:]


def _exchange(rng: random.Random, data: bytes) -> bytes:
    """Put something in the place of what stands between two commas: JSON still, as a rule."""
    parts = data.split(b",")
    parts[rng.randrange(len(parts))] = rng.choice(TOKENS)
    return b",".join(parts)


def _leave_out(rng: random.Random, data: bytes) -> bytes:
    parts = data.split(b",")
    del parts[rng.randrange(len(parts))]
    return b",".join(parts)


_CHANGES: tuple[Callable[[random.Random, bytes], bytes], ...] = (_flip, _cut, _drop, _repeat, _splice, _exchange, _exchange, _leave_out)
