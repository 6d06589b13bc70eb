"""Where a command connects: the order of precedence, with a running `mesh dev` last."""

from __future__ import annotations

import json
import os

import pytest

from mesh.cli.where import find
from mesh_sdk.errors import ConfigurationError


@pytest.fixture
def dev(tmp_path):
    """A folder in which a `mesh dev` runs (this process stands for it)."""
    (tmp_path / ".mesh").mkdir()
    (tmp_path / ".mesh" / "dev.json").write_text(
        json.dumps({"url": "nats://127.0.0.1:5555", "namespace": "dev", "pids": {"dev": os.getpid()}})
    )
    return tmp_path


def test_without_anything_the_defaults(tmp_path):
    where = find(folder=tmp_path)
    assert (where.url, where.namespace) == ("nats://127.0.0.1:4222", "default")


def test_a_running_dev_is_found(dev):
    where = find(folder=dev)
    assert (where.url, where.namespace) == ("nats://127.0.0.1:5555", "dev")


def test_a_dead_dev_is_not(dev):
    gone = {"url": "nats://127.0.0.1:5555", "namespace": "dev", "pids": {"dev": 2**22 + 1}}
    (dev / ".mesh" / "dev.json").write_text(json.dumps(gone))
    assert find(folder=dev).url == "nats://127.0.0.1:4222"


def test_half_a_file_is_not(dev):
    (dev / ".mesh" / "dev.json").write_text('{"url": ')
    assert find(folder=dev).url == "nats://127.0.0.1:4222"


def test_the_environment_wins_over_a_running_dev(dev, monkeypatch):
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:6666")
    assert find(folder=dev).url == "nats://127.0.0.1:6666"
    monkeypatch.setenv("MESH_URL", "nats://127.0.0.1:7777")
    assert find(folder=dev).url == "nats://127.0.0.1:7777"


def test_a_file_wins_over_a_running_dev(dev):
    (dev / "mesh.toml").write_text('url = "nats://127.0.0.1:8888"\n')
    assert find(folder=dev).url == "nats://127.0.0.1:8888"


def test_options_win_over_everything(dev, monkeypatch):
    monkeypatch.setenv("MESH_URL", "nats://127.0.0.1:7777")
    monkeypatch.setenv("MESH_NAMESPACE", "theirs")
    where = find("nats://127.0.0.1:9999", "mine", dev)
    assert (where.url, where.namespace) == ("nats://127.0.0.1:9999", "mine")


def test_a_chosen_namespace_stays_on_a_running_dev(dev):
    assert find(namespace="mine", folder=dev).namespace == "mine"


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "mesh.toml").write_text("url = [")
    with pytest.raises(ConfigurationError, match=r"mesh\.toml"):
        find(folder=tmp_path)
