"""What a key function may give as the key: text of 1 to 512 characters, and nothing else leaves the worker."""

from __future__ import annotations

from enum import StrEnum

import pytest

from mesh_sdk import Context, InvalidOutput, Mesh

mesh = Mesh()


def work(ctx: Context) -> None: ...


def key(ctx: Context) -> str:
    return "one"


class Name(StrEnum):
    SHORT = "s"


class Rude:
    def __repr__(self) -> str:
        raise ValueError("not me")


@pytest.mark.parametrize(("value", "data"), [("k", b'"k"'), ("ü" * 512, b'"' + "ü".encode() * 512 + b'"'), (Name.SHORT, b'"s"')])
def test_a_key_travels(value: str, data: bytes) -> None:
    assert dump(value) == data


def dump(value: object) -> bytes:
    flow = mesh.workflow(name="flow")
    flow.concurrency()(key)
    flow.step()(work)
    found = flow.bind().key
    assert found is not None
    return found.dump_output(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "returned None"),
        (7, "returned int (7)"),
        (True, "returned bool (True)"),
        ("", "returned an empty text"),
        ("x" * 2_000_000, "returned a text of 2,000,000 characters ('xxx"),
        ("x" * 513, "returned a text of 513 characters"),
        (b"k", "returned bytes (b'k')"),
        (["k"] * 1_000, "returned list (['k', 'k', "),
        (Rude(), "returned Rude (<Rude instance"),
        ("\ud800", r"returned '\ud800', which can't be written as JSON"),
    ],
    ids=lambda value: repr(value)[:20] if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_key_is_refused_by_the_worker(value: object, said: str) -> None:
    with pytest.raises(InvalidOutput, match=r"^key function 'key' of workflow 'flow' returned ") as refused:
        dump(value)
    assert said in str(refused.value)
    assert "JSON" in str(refused.value) or str(refused.value).endswith("return a text of 1 to 512 characters")
    assert len(str(refused.value)) < 250
