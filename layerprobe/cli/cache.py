"""`layerprobe cache`."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from layerprobe.cli.console import emit, escape, say
from layerprobe.errors import AccessError, UsageError

if TYPE_CHECKING:
    from layerprobe.engines.cache import Cache, Listed


@click.command()
@click.option("--clear", is_flag=True, help="Remove everything in it.")
@click.option("--json", "as_json", is_flag=True, help="One object on stdout.")
def cache(clear: bool, as_json: bool) -> None:
    """Show the conversions that are kept for later runs of the engine `converted`, last used first.

    Models that were fetched are there too.

    They are in $LAYERPROBE_CACHE, or in the system's place for such things.
    """
    from layerprobe.engines.cache import user_cache

    found = user_cache()
    if found is None:
        raise UsageError("LAYERPROBE_CACHE is empty, so there is no cache: unset it, or name a folder.")
    if clear:
        try:
            removed = found.clear()
        except OSError as error:
            raise AccessError(f"{found.folder} cannot be emptied: {error.strerror}.") from error
        say(f"{removed} file{'s' * (removed != 1)} removed from {escape(found.folder)}")
        return
    # What is remembered of a model itself, for all its conversions, names no layers.
    entries = [entry for entry in found.entries() if "layers" in entry.about]
    if as_json:
        emit(json.dumps(_summary(found, entries), indent=2))
        return
    for entry in entries:
        emit("\n".join(_lines(entry)))
    size = sum(entry.size for entry in entries)
    say(f"{len(entries)} conversion{'s' * (len(entries) != 1)}, {_size(size)}, in {escape(found.folder)}")


def _summary(found: Cache, entries: list[Listed]) -> dict[str, Any]:
    return {
        "folder": found.folder,
        "entries": [
            {"key": entry.key, "size": entry.size, "used": entry.used, **_told(entry)} for entry in entries
        ],
    }


def _told(entry: Listed) -> dict[str, Any]:
    about = entry.about
    return {name: about.get(name) for name in ("model", "layers", "kept", "agreement", "refused")}


def _lines(entry: Listed) -> list[str]:
    told = _told(entry)
    names = told["layers"]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    verdict = (
        f"agrees with Keras: {told['agreement']}"
        if told["refused"] is None
        else f"not used: {told['refused']}"
    )
    return [
        escape(str(told["model"])),
        f"  layers   {escape(', '.join(names[:5]))}{more}",
        f"  size     {_size(entry.size)}, used {_age(time.time() - entry.used)} ago",
        f"  verdict  {escape(verdict)}",
    ]


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"


def _age(seconds: float) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            number = int(seconds // length)
            return f"{number} {unit}{'s' * (number != 1)}"
    return "less than a minute"
