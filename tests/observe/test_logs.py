from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest

from mesh_sdk.observe import logs
from mesh_sdk.worker.observer import Nobody
from mesh_sdk.worker.sticky import StickyEvents


@pytest.fixture(autouse=True)
def root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


def test_json_lines_carry_the_bound_fields() -> None:
    stream = io.StringIO()
    logs.configure("info", json=True, stream=stream)
    token = logs.bind({"run": "r1", "step": "read", "attempt": 2, "worker": "w-1"})
    logging.getLogger("mesh.test").info("read %d bytes\nof it", 7)
    logs.unbind(token)
    logging.getLogger("mesh.test").warning("alone")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["time"].endswith("Z")
    assert {key: first[key] for key in ("level", "logger", "message")} == {
        "level": "info",
        "logger": "mesh.test",
        "message": "read 7 bytes\nof it",
    }
    assert {key: first[key] for key in logs.FIELDS if key in first} == {"run": "r1", "step": "read", "attempt": 2, "worker": "w-1"}
    assert not set(second) & set(logs.FIELDS)


def test_extra_goes_before_what_is_bound() -> None:
    stream = io.StringIO()
    logs.configure(json=True, stream=stream)
    token = logs.bind({"run": "r1", "step": "read"})
    logging.getLogger("mesh.test").info("x", extra={"run": "r2"})
    logs.unbind(token)
    line = json.loads(stream.getvalue())
    assert (line["run"], line["step"]) == ("r2", "read")


def test_what_happened_to_a_sticky_run_is_told_by_its_name() -> None:
    stream = io.StringIO()
    logs.configure(json=True, stream=stream)
    StickyEvents(Nobody(), "w-1").evicted("r1", "resize")
    line = json.loads(stream.getvalue())
    assert {key: line[key] for key in logs.FIELDS if key in line} == {"event": "sticky.eviction", "run": "r1", "worker": "w-1"}


def test_a_traceback_is_one_field() -> None:
    stream = io.StringIO()
    logs.configure(json=True, stream=stream)
    try:
        raise ValueError("oops")
    except ValueError:
        logging.getLogger("mesh.test").exception("failed")
    line = json.loads(stream.getvalue())
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: oops")


def test_text_lines_end_with_the_fields() -> None:
    stream = io.StringIO()
    logs.configure("DEBUG", stream=stream)
    logging.getLogger("mesh.test").debug("hello", extra={"run": "r1"})
    assert stream.getvalue().endswith("Z DEBUG   mesh.test: hello run=r1\n")


def test_text_lines_show_the_traceback_below() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    try:
        raise ValueError("oops")
    except ValueError:
        logging.getLogger("mesh.test").exception("failed")
    assert "mesh.test: failed\nTraceback" in stream.getvalue()


def test_bound_fields_go_along_into_a_thread_with_its_context() -> None:
    stream = io.StringIO()
    logs.configure(json=True, stream=stream)
    token = logs.bind({"run": "r1"})
    context = copy_context()
    logs.unbind(token)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(context.run, logging.getLogger("mesh.test").info, "x").result(10)
    assert json.loads(stream.getvalue())["run"] == "r1"


def test_configuring_again_replaces_only_our_own_handler() -> None:
    root = logging.getLogger()
    foreign = logging.NullHandler()
    root.addHandler(foreign)
    first, second = io.StringIO(), io.StringIO()
    logs.configure(stream=first)
    logs.configure(stream=second)
    logging.getLogger("mesh.test").info("x")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1
    assert foreign in root.handlers


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        logs.configure("loud")


def test_further_lines_of_a_message_come_below_the_fields() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    logging.getLogger("mesh.test").info("failed\nTraceback", extra={"run": "r1"})
    assert stream.getvalue().endswith("mesh.test: failed run=r1\nTraceback\n")
