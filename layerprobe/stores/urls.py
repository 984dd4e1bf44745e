"""URLs as the user types them: what is one, how it is shown, and what is named from its place.

Nothing here imports fsspec: every path that is typed comes by.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from layerprobe.hiding import HIDDEN as HIDDEN
from layerprobe.hiding import SCHEME
from layerprobe.hiding import shown as shown
from layerprobe.hiding import shown_within as shown_within

WEB = ("http", "https")
"""Protocols whose URLs may have a query behind the name."""
_LOCAL = ("file", "local")


def is_url(text: str) -> bool:
    """Whether a name is a URL, rather than a path of this machine."""
    return SCHEME.match(text) is not None


def protocol_of(url: str) -> str:
    """Give what stands before `://`, in small letters; "" for a path."""
    match = SCHEME.match(url)
    return "" if match is None else match[1].lower()


def without_file(text: str) -> str:
    """Give the path that `file://` names; everything else as it is."""
    return text.partition("://")[2] if protocol_of(text) in _LOCAL else text


def located(name: str) -> str:
    """Give where an output is, as it is stored: its whole path, or its URL as it may be shown."""
    return shown(name) if is_url(name) else os.path.abspath(name)


def path_of(url: str) -> str:
    """Give what names the object, for its suffix: of web addresses that is without the query."""
    return urlsplit(url).path if protocol_of(url) in WEB else url


def name_of(url: str) -> str:
    """Give the last part of what names an object or a file."""
    return path_of(url).rstrip("/").rsplit("/", 1)[-1]


def beside(url: str, name: str) -> str:
    """Give what a list at `url` means by `name`: a URL as it is, everything else from the list's folder."""
    if is_url(name):
        return name
    protocol, rest = _web(url) if protocol_of(url) in WEB else tuple(url.split("://", 1))
    folder = rest.rpartition("/")[0]
    if name.startswith("/"):
        folder, name = rest.partition("/")[0], name[1:]
    parts = folder.split("/") if folder else []
    for part in name.split("/"):
        if part == ".." and len(parts) > 1:
            parts.pop()
        elif part not in (".", ".."):
            parts.append(part)
    return f"{protocol}://{'/'.join(parts)}"


def _web(url: str) -> tuple[str, str]:
    found = urlsplit(url)
    return found.scheme, f"{found.netloc}{found.path}"
