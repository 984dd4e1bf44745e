"""The web servers that this process has to do with: whether one of them is gone, or the network is."""

from __future__ import annotations

import heapq
import socket
import ssl
from urllib.parse import urlsplit

from layerprobe.stores.attempts import Attempts
from layerprobe.stores.urls import WEB, protocol_of

CONNECT_SECONDS = 4
"""How long a connection may take."""
_ASKED = 3
"""So many other servers are tried, those first that answered last."""

_servers: dict[str, Attempts] = {}
"""By protocol, name and port."""


def server_of(url: str) -> Attempts:
    """Find the attempts at the web server of a URL; from now on it is known."""
    origin = _origin(url)
    found = _servers.get(origin)
    return found or _servers.setdefault(origin, Attempts(f"{protocol_of(url)}://"))


def others_answer(url: str, since: float) -> bool:
    """Whether web servers other than that of a URL answer, so that it is not the network that does not.

    Args:
        url: Of an object that was asked for in vain; of no web server, others say nothing about it.
        since: When that began, by `time.monotonic`.
    """
    if protocol_of(url) not in WEB:
        return False
    own = _origin(url)
    # Other threads may come to know more of them.
    others = [(server.last_answer, origin) for origin, server in list(_servers.items()) if origin != own]
    latest = heapq.nlargest(_ASKED, others)
    return any(answer >= since for answer, _ in latest) or any(_is_there(origin) for _, origin in latest)


def _is_there(origin: str) -> bool:
    """Whether a server takes a connection, and has a certificate that is accepted."""
    try:
        parts = urlsplit(origin)
        is_secure, name = parts.scheme == "https", parts.hostname or ""
        with socket.create_connection(
            (name, parts.port or (443 if is_secure else 80)), CONNECT_SECONDS
        ) as plain:
            if is_secure:
                ssl.create_default_context().wrap_socket(plain, server_hostname=name).close()
    except (OSError, ValueError):
        return False
    return True


def _origin(url: str) -> str:
    protocol, _, rest = url.partition("://")
    host = rest.partition("/")[0].partition("?")[0].partition("#")[0]
    return f"{protocol}://{host.rpartition('@')[2]}".lower()
