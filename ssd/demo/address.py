"""Whether a server can be started where it is asked for: known before anything is loaded."""

from __future__ import annotations

import socket

from ..commands.errors import UsageError


def check_address(host: str, port: int) -> None:
    """Raise a `UsageError` unless a server can be started there."""
    if not 1 <= port <= 65535:
        raise UsageError(f"--port must be in 1..65535, got {port}.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        raise UsageError(
            f"--host {host} --port {port} cannot be used ({error.strerror or error}): give another."
        ) from error
