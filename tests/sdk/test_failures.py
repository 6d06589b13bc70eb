"""What whoever awaits a run is told of its end."""

from __future__ import annotations

from mesh_sdk import RunFailed
from mesh_sdk.failures import error_of
from mesh_sdk.protocol.records import FAILED, NULL, Done, RunError

REASON = "concurrency key function 'k' failed, so the run could not begin: ValueError: boom"


def test_a_key_function_that_failed_is_told_once_and_not_called_a_step() -> None:
    error = error_of(Done("r", FAILED, NULL, [RunError("", FAILED, REASON), RunError("k", "ValueError", "boom", "Traceback…", 1)]))
    assert isinstance(error, RunFailed)
    assert str(error) == f"run r failed: {REASON}"
    assert [(failure.step, failure.type, failure.message, failure.attempt) for failure in error.errors] == [("k", "ValueError", "boom", 1)]
    assert error.errors[0].traceback == "Traceback…"


def test_a_run_that_failed_by_no_step_says_why() -> None:
    error = error_of(Done("r", FAILED, NULL, [RunError("", FAILED, "'input.user' finds nothing")]))
    assert str(error) == "run r failed: 'input.user' finds nothing"


def test_every_step_that_failed_is_told() -> None:
    error = error_of(Done("r", FAILED, NULL, [RunError("a", "KeyError", "'x'", "", 2), RunError("b", "ValueError", "no", "", 1)]))
    assert str(error) == "run r failed: step 'a': KeyError: 'x' (attempt 2); step 'b': ValueError: no"
    assert isinstance(error, RunFailed)
    assert [failure.step for failure in error.errors] == ["a", "b"]
