"""Every error of the tree has an exit code of its own meaning, and codes never change."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mesh import errors as engine
from mesh.cli.app import run
from mesh.cli.exits import MEANINGS, Exit, exit_code
from mesh_sdk import errors

CODES = [
    (errors.ConfigurationError, 3),
    (engine.ServerBinaryMissing, 3),
    (errors.ConnectionFailed, 4),
    (errors.ServerUnsuitable, 5),
    (errors.RunNotFound, 6),
    (errors.WorkerNotFound, 6),
    (errors.UnknownWorkflow, 6),
    (errors.RunFailed, 7),
    (errors.RunCancelled, 7),
    (errors.RunTimedOut, 7),
    (errors.Unavailable, 8),
    (TimeoutError, 8),
    (engine.StoreLocked, 9),
    (engine.PortTaken, 10),
    (errors.InvalidInput, 11),
    (errors.InvalidName, 11),
    (errors.PayloadTooLarge, 11),
    (errors.DefinitionError, 12),
    (errors.RegistrationRefused, 13),
    (engine.ExtraMissing, 14),
    (errors.MeshError, 1),
    (engine.ServerStartFailed, 1),
]


def test_the_package_is_the_command():
    done = subprocess.run([sys.executable, "-m", "mesh", "runs", "--nonsense"], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == Exit.USAGE
    assert done.stderr.startswith("mesh: ")


@pytest.mark.parametrize(("error", "code"), CODES, ids=[error.__name__ for error, _ in CODES])
def test_an_error_has_its_code(error, code):
    assert exit_code(error("what was wrong")) == code


def test_no_error_ends_well():
    def below(kind: type) -> list[type]:
        return [kind, *(each for child in kind.__subclasses__() for each in below(child))]

    assert all(exit_code(kind.__new__(kind)) != Exit.OK for kind in below(errors.MeshError))


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["nothing-like-it"], 2, "nothing-like-it"),
        (["publish", "user:create", "{not json"], 2, "{not json"),
        (["run", "w", "{}", "--priority", "10"], 2, "10"),
        (["run", "w", "{}", "--metadata", "novalue"], 2, "novalue"),
        (["run", "w", "{}", "--timeout", "soon"], 2, "soon"),
        (["runs", "list", "--limit", "0"], 2, "0"),
        (["runs", "show"], 2, "RUN"),
        (["runs", "list", "--namespace", "a.b"], 11, "a.b"),
        (["worker", "no_such_module_here"], 12, "no_such_module_here"),
        (["worker", "not a module"], 12, "not a module"),
        (["worker", "json:no_such_thing"], 12, "no_such_thing"),
        (["worker", "json:dumps"], 12, "json:dumps"),
        (["worker", "json"], 12, "json"),
        (["runs", "list", "--url", "nats://127.0.0.1:1"], 4, "127.0.0.1:1"),
        (["run", "w", "{}", "--url", "nats://127.0.0.1:1"], 4, "127.0.0.1:1"),
        (["publish", "an.event", "--url", "nats://127.0.0.1:1"], 4, "127.0.0.1:1"),
        (["publish", "an event", "{}"], 11, "an event"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_ends_with_one_line_and_its_code(arguments, code, told, capfd):
    assert run(arguments) == code
    out, error = capfd.readouterr()
    assert out == ""
    assert error.startswith("mesh: ")
    assert error.count("\n") == 1
    assert told in error


def test_every_code_is_explained(capsys):
    assert run(["--help"]) == 0
    told = capsys.readouterr().out
    assert set(MEANINGS) == set(Exit)
    assert all(f"{int(code)} " in told for code in Exit)


def test_a_group_without_a_command_shows_its_help(capsys):
    assert run(["runs"]) == 2
    assert "list" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["dev", "scheduler", "worker", "publish", "run", "runs", "workers", "workflows", "doctor", "demo"])
def test_every_command_has_help(name, capsys):
    assert run([name, "--help"]) == 0
    assert "Usage: mesh" in capsys.readouterr().out


def test_the_process_exits_with_the_code():
    done = subprocess.run([sys.executable, "-m", "mesh.cli", "worker", "no_such_module_here"], capture_output=True, text=True, check=False)
    assert done.returncode == 12
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "no_such_module_here" in done.stderr
