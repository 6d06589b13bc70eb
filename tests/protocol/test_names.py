"""Subjects and ids: what can be a name, what is refused, and that the same things get the same id."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh_sdk.errors import InvalidName
from mesh_sdk.protocol import ids
from mesh_sdk.protocol.keys import workflow_key
from mesh_sdk.protocol.subjects import Subjects, check_event_name, check_token
from tests.protocol import strategies as strategies

times = st.integers(0, 2**48 - 1)
BAD_TOKENS = ["", " ", "a b", "a.b", "*", ">", "ä", "a\n", "a\r\nPUB x 0", "x" * 65, "a/b", "a:b"]
BAD_EVENTS = ["", ".", "a.", ".a", "a..b", "a b", "*", "a.*", ">", "a.>", "a\n", "a\tb", "a\x00", "\x7f", "x" * 201]


@pytest.mark.parametrize("value", BAD_TOKENS)
def test_a_token_that_no_subject_can_carry_is_refused_and_named(value: str) -> None:
    with pytest.raises(InvalidName, match=re.escape(repr(value))):
        check_token("worker id", value)


@pytest.mark.parametrize("value", BAD_TOKENS)
def test_a_namespace_is_a_token(value: str) -> None:
    with pytest.raises(InvalidName, match="namespace"):
        Subjects(value)


@pytest.mark.parametrize("name", BAD_EVENTS)
def test_an_event_name_that_is_no_subject_is_refused_and_named(name: str) -> None:
    with pytest.raises(InvalidName, match=re.escape(repr(name)[:150])):
        check_event_name(name)


@pytest.mark.parametrize("name", ["user:create", "a", "a.b.c", "order-1_x", "größe", "x" * 200])
def test_an_event_name_comes_back_from_its_subject(name: str) -> None:
    subjects = Subjects("ns")
    assert subjects.event_name(subjects.event(check_event_name(name))) == name


@given(name=st.text())
def test_what_is_accepted_as_an_event_name_is_one_line_without_wildcards(name: str) -> None:
    try:
        check_event_name(name)
    except InvalidName:
        return
    assert all(name.split("."))
    assert not set(name) & set(" *>\t\r\n\x00")


@given(value=st.text())
def test_what_is_accepted_as_a_token_is_ascii_without_separators(value: str) -> None:
    try:
        check_token("client", value)
    except InvalidName:
        return
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value)


def test_names_of_namespaces_never_meet() -> None:
    one, other = Subjects("a"), Subjects("b")
    shared = {v for v in vars(one).values() if isinstance(v, str)} & {v for v in vars(other).values() if isinstance(v, str)}
    assert not shared


# ---- ids


@given(time_ms=times, unique=st.binary(min_size=6, max_size=8), counter=st.integers(0, 2**33))
def test_a_run_id_carries_its_time(time_ms: int, unique: bytes, counter: int) -> None:
    run = ids.run_id(time_ms, unique, counter)
    assert re.fullmatch(r"[0-9a-f]{32}", run)
    assert ids.run_id_time_ms(run) == time_ms


@given(first=times, second=times)
def test_run_ids_sort_by_time(first: int, second: int) -> None:
    one, other = ids.run_id(first, b"\xff" * 6, 9), ids.run_id(second, b"\x00" * 6, 0)
    assert (one < other) == (first < second)


@given(time_ms=times, parts=st.lists(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])), min_size=1, max_size=3))
def test_a_derived_id_follows_from_its_parts(time_ms: int, parts: list[str]) -> None:
    run = ids.derived_run_id(time_ms, *parts)
    assert run == ids.derived_run_id(time_ms, *parts)
    assert run != ids.derived_run_id(time_ms, *parts, "")
    assert ids.run_id_time_ms(run) == time_ms
    assert len(run) == ids.RUN_ID_CHARACTERS


@pytest.mark.parametrize("run", ["", "abc", "0" * 31, "0" * 33, "x" * 32])
def test_what_is_no_run_id_is_refused_and_named(run: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(run)) + "|invalid literal"):
        ids.run_id_time_ms(run)


@given(actions=st.lists(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])), unique=True))
def test_a_pool_is_its_actions_in_any_order(actions: list[str]) -> None:
    assert ids.pool_id(actions) == ids.pool_id(reversed(actions))
    assert ids.pool_id([*actions, "one more"]) != ids.pool_id(actions) or "one more" in actions


def test_a_later_incarnation_sorts_after_an_earlier_one() -> None:
    assert ids.incarnation_id(1, b"\xff\xff\xff") < ids.incarnation_id(2, b"\x00\x00\x00")


@given(names=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), unique=True, min_size=2, max_size=5))
def test_workflows_of_two_names_have_two_keys(names: list[str]) -> None:
    keys = [workflow_key(name) for name in names]
    assert len(set(keys)) == len(names)
    assert all(re.fullmatch(r"[-/_=.a-zA-Z0-9]+", key) for key in keys)
