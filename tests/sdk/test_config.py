"""Where the mesh is: arguments, environment, file, defaults; in that order, read at first use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh_sdk import ConfigurationError, InvalidName, Mesh, config
from mesh_sdk.config import override, resolve


@pytest.fixture(autouse=True)
def _no_overrides() -> Iterator[None]:
    yield
    config._overrides.clear()


def test_defaults(tmp_path: Path):
    settings = resolve(environment={}, directory=tmp_path)
    assert (settings.servers, settings.namespace, settings.connect_timeout_s) == (("nats://127.0.0.1:4222",), "default", 5.0)


def test_the_order_of_the_sources(tmp_path: Path):
    (tmp_path / "mesh.toml").write_text('url = "nats://file:1"\nnamespace = "of-file"\nconnect_timeout = "2s"\n')
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    settings = resolve(environment={}, directory=below)
    assert (settings.servers, settings.namespace, settings.connect_timeout_s) == (("nats://file:1",), "of-file", 2.0)
    environment = {"NATS_URL": "nats://nats:1", "MESH_NAMESPACE": "of-env"}
    settings = resolve(environment=environment, directory=below)
    assert (settings.servers, settings.namespace, settings.connect_timeout_s) == (("nats://nats:1",), "of-env", 2.0)
    environment["MESH_URL"] = "nats://mesh:1, mesh:2"
    assert resolve(environment=environment, directory=below).servers == ("nats://mesh:1", "nats://mesh:2")
    settings = resolve("tls://own:1", "own", 1, environment=environment, directory=below)
    assert (settings.servers, settings.namespace, settings.connect_timeout_s) == (("tls://own:1",), "own", 1.0)
    override(url="nats://line:1", namespace="of-line")
    settings = resolve("tls://own:1", "own", environment=environment, directory=below)
    assert (settings.servers, settings.namespace) == (("nats://line:1",), "of-line")


def test_a_table_of_pyproject(tmp_path: Path):
    (tmp_path / "pyproject.toml").write_text('[tool.mesh]\nurl = ["nats://a:1", "nats://b:1"]\n')
    assert resolve(environment={}, directory=tmp_path).servers == ("nats://a:1", "nats://b:1")
    (tmp_path / "pyproject.toml").write_text("[tool.other]\n")
    assert resolve(environment={}, directory=tmp_path).servers == ("nats://127.0.0.1:4222",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("url = ", "mesh.toml can't be read"),
        ('uri = "nats://a:1"', "'uri'"),
        ("url = 3", "3"),
        ('url = "http://a:1"', "'http://a:1'"),
        ('url = " , "', "names no server"),
        ('connect_timeout = "soon"', "'soon'"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, said: str):
    (tmp_path / "mesh.toml").write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        resolve(environment={}, directory=tmp_path)
    assert said in str(refused.value)
    assert "mesh.toml" in str(refused.value)


def test_making_a_mesh_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mesh.toml").write_text("broken")
    mesh = Mesh()
    with pytest.raises(ConfigurationError):
        _ = mesh.settings
    (tmp_path / "mesh.toml").write_text('namespace = "later"')
    assert mesh.settings.namespace == "later"
    with pytest.raises(InvalidName, match=r"'a\.b'"):
        Mesh(namespace="a.b")
