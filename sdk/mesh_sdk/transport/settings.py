"""How to reach a server: everything about a connection that an operator may want to choose. Loads nothing foreign."""

from __future__ import annotations

from msgspec import Struct


class ConnectionSettings(Struct, frozen=True, kw_only=True):
    """Credentials, TLS and timing of one connection; the defaults suit a trusted network.

    User, password and token may stand in the URL instead. `credentials` and the `tls_*` fields are paths of files.
    """

    user: str = ""
    password: str = ""
    token: str = ""
    credentials: str = ""
    """A `.creds` file: user JWT and nkey seed."""
    nkey_seed: str = ""
    """A file that holds an nkey seed."""
    tls_ca: str = ""
    """Certificates to trust instead of the system's."""
    tls_certificate: str = ""
    tls_key: str = ""
    tls_hostname: str = ""
    inbox_prefix: str = "_INBOX"
    """First tokens of every reply subject: gives a role its own inboxes."""
    ping_interval_s: float = 5.0
    """A peer that answers no ping is given up after twice this."""
    reconnect_wait_s: float = 0.1
    write_buffer_bytes_max: int = 64 * 1024 * 1024
    """Unsent bytes past which writes are refused as if there were no connection."""
