"""Opening a connection: what is wrong is said in one line, with the value and what to do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mesh_sdk.errors import ConfigurationError, ConnectionFailed, ServerUnsuitable
from mesh_sdk.transport.connection import connect
from mesh_sdk.transport.settings import ConnectionSettings
from tests.contract.servers import Server, free_port


async def test_no_server_names_the_url_and_what_to_do():
    url = f"nats://127.0.0.1:{free_port()}"
    with pytest.raises(ConnectionFailed, match=f"{url}.*MESH_URL"):
        await connect([url], name="test", connect_timeout=0.3)


async def test_a_silent_peer_is_no_server():
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionFailed, match=str(port)):
            await connect([f"nats://127.0.0.1:{port}"], name="test", connect_timeout=0.3)


async def test_a_server_without_jetstream(tmp_path: Path):
    server = Server(tmp_path, jetstream=False).start()
    try:
        with pytest.raises(ServerUnsuitable, match="JetStream"):
            await connect([server.url], name="test")
    finally:
        server.kill()


@pytest.mark.parametrize("version", ["2.11.9", "1.4.0", "2.10.0-beta.1"])
async def test_an_old_server_is_named_with_its_version(version: str):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"X","version":"%s","max_payload":1048576,"headers":true}\r\n' % version.encode())
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as old:
        with pytest.raises(ServerUnsuitable, match=f"{version}.*2.12"):
            await connect([f"nats://127.0.0.1:{old.sockets[0].getsockname()[1]}"], name="test")


async def test_wrong_credentials_are_told_at_once(tmp_path: Path):
    server = Server(tmp_path)
    config = tmp_path / "nats.conf"
    config.write_text(config.read_text() + "authorization { user: u, password: p }\n")
    server.start()
    try:
        with pytest.raises(ConnectionFailed, match=r"credentials"):
            await connect([server.url], name="test", settings=ConnectionSettings(user="u", password="wrong"), connect_timeout=20)
        link = await connect([server.url], name="test", settings=ConnectionSettings(user="u", password="p"))
        await link.close()
    finally:
        server.kill()


async def test_settings_that_can_not_be():
    with pytest.raises(ConfigurationError, match="http://x"):
        await connect(["http://x"], name="test")
    with pytest.raises(ConfigurationError, match="/nowhere/ca"):
        await connect(["nats://x"], name="test", settings=ConnectionSettings(tls_ca="/nowhere/ca.pem"))
