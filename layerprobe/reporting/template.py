"""The page: its files, and how data is put into them so that it stays data."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from typing import Any

_FOLDER = files("layerprobe.reporting") / "page"
SCRIPTS = ("elements.js", "drawing.js", "lists.js", "layers.js", "images.js", "about.js", "main.js")
"""In the order in which they are put together to one script."""
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def fill_page(title: str, data: Mapping[str, Any]) -> bytes:
    """Put data into the page.

    The policy in its head forbids the page every connection, and every script and style but its own, which it
    knows by their SHA-256.

    Args:
        title: Of the page.
        data: Plain values, without NaN.
    """
    script = "(() => {\n'use strict';\n" + "\n".join(map(_text, SCRIPTS)) + "})();\n"
    style = _text("page.css")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    parts = {
        "title": html.escape(title),
        "policy": html.escape(policy, quote=False),
        "style": style,
        "script": script,
        "data": as_script_data(data),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _text("page.html"))
    return page.encode()


def as_script_data(data: Mapping[str, Any]) -> str:
    """JSON in ASCII that ends no element and begins no comment, wherever it stands in HTML."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return re.sub("[<>&]", lambda match: _UNSAFE[match[0]], text)


def _text(name: str) -> str:
    return (_FOLDER / name).read_text("utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode("ascii")
