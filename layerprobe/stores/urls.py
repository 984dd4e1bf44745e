"""URLs as the user types them: what is one, how it is shown, and what is named from its place.

Nothing here imports fsspec: every path that is typed comes by.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_WITHIN = re.compile(rf"{_SCHEME.pattern}[^\s'\"]+")
WEB = ("http", "https")
"""Protocols whose URLs may have a query behind the name."""
_LOCAL = ("file", "local")
_USER = re.compile(r"(?<=://)[^/?#@]*@")
_AZURE = re.compile(r"(abfss?|wasbs?)://[^/?#@:]*@", re.IGNORECASE)
"""There the container stands where others have the user: `abfs://container@account.dfs.core.windows.net`."""
_PARAMETER = re.compile(r"([?&])([^=&#]+)=([^&#]*)")
_SECRET = re.compile(
    r"x-(amz|goog|ms)-.*|.*(signature|token|secret|passw|credential).*|sig|pwd|policy|expires|auth(orization)?"
    r"|([a-z]*[-_]?)key([-_]?(pair[-_]?)?id)?|se|sp|sv|sr|st|ss|srt|spr|sip|sk[a-z]{1,4}",
    re.IGNORECASE,
)
"""Names of parameters that sign a URL or hold a password; the short ones are those of Azure's signatures."""
HIDDEN = "***"
"""What stands in the place of a password."""


def is_url(text: str) -> bool:
    """Whether a name is a URL, rather than a path of this machine."""
    return _SCHEME.match(text) is not None


def protocol_of(url: str) -> str:
    """Give what stands before `://`, in small letters; "" for a path."""
    match = _SCHEME.match(url)
    return "" if match is None else match[1].lower()


def without_file(text: str) -> str:
    """Give the path that `file://` names; everything else as it is."""
    return text.partition("://")[2] if protocol_of(text) in _LOCAL else text


def shown(url: str) -> str:
    """Give a URL as it may be shown and stored: without passwords, signatures and tokens."""
    if not is_url(url):
        return url

    def without_secret(found: re.Match[str]) -> str:
        return f"{found[1]}{found[2]}={HIDDEN if _SECRET.fullmatch(unquote(found[2])) else found[3]}"

    without_user = url if _AZURE.match(url) else _USER.sub(f"{HIDDEN}@", url, count=1)
    return _PARAMETER.sub(without_secret, without_user)


def shown_within(text: str) -> str:
    """Give a text in which all URLs stand as they may be shown."""
    return _WITHIN.sub(lambda found: shown(found[0]), text)


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
