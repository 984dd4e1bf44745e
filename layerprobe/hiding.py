"""Passwords, signatures and tokens in URLs: what is shown and stored has none of them.

Every error and every line on stderr passes `shown_within`, so that no message has to think of it.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_WITHIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://(?:[^\s/]*@)?[^\s'\"`]+(?<![.,:;!?)\]}])")
"""A URL in a text: quotes end it, but for those of a password, and what ends a sentence is none of it.

That schemes are short keeps the search linear: texts may have megabytes of strangers' names.
"""
_USER = re.compile(r"(?<=://)[^/]*@")
"""Up to the last `@` before the path: a password may have others, and `?` and `#`, that were not escaped."""
_AZURE = re.compile(r"(abfss?|wasbs?)://[^/?#@:]*@(?![^/]*@)", re.IGNORECASE)
"""There the container stands where others have the user: `abfs://container@account.dfs.core.windows.net`."""
_PARAMETER = re.compile(r"([?&])([^=&#?]+)=([^&#]*)")
_SECRET = re.compile(
    r"x-(amz|goog|ms)-.*|.*(signature|token|secret|passw|credential).*|sig|pwd|policy|expires|auth(orization)?"
    r"|([a-z]*[-_]?)key([-_]?(pair[-_]?)?id)?|se|sp|sv|sr|st|ss|srt|spr|sip|sk[a-z]{1,4}",
    re.IGNORECASE,
)
"""Names of parameters that sign a URL or hold a password; the short ones are those of Azure's signatures."""
HIDDEN = "***"
"""What stands in the place of a password."""


def shown(url: str) -> str:
    """Give a URL as it may be shown and stored: without passwords, signatures and tokens."""
    if SCHEME.match(url) is None:
        return url

    def without_secret(found: re.Match[str]) -> str:
        return f"{found[1]}{found[2]}={HIDDEN if _SECRET.fullmatch(unquote(found[2])) else found[3]}"

    without_user = url if _AZURE.match(url) else _USER.sub(f"{HIDDEN}@", url, count=1)
    return _PARAMETER.sub(without_secret, without_user)


def shown_within(text: str) -> str:
    """Give a text in which all URLs stand as they may be shown."""
    return _WITHIN.sub(lambda found: shown(found[0]), text) if "://" in text else text
