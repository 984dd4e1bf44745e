"""The parts of a run: what each says of itself, and whether they make one whole."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerprobe.errors import MergeError, NoInputError
from layerprobe.formats.opening import format_of, open_output
from layerprobe.formats.placement import unfinished_name
from layerprobe.run.identity import difference
from layerprobe.run.shards import parse_shard, rows_of
from layerprobe.stores.urls import shown

if TYPE_CHECKING:
    from layerprobe.protocols import Reader

LISTED = 5
"""So many gaps, doubles or strangers are named."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one part says of itself."""

    path: str
    """As it is opened."""
    rows: range
    """Which of the list's it has."""
    signature: Mapping[str, Any]
    """Of its run, without what differs from part to part."""
    provenance: Mapping[str, Any]
    file_format: str
    """A name in `registry.READERS`."""

    @property
    def name(self) -> str:
        """What it is called in what is told."""
        return shown(self.path)

    @property
    def batch_size(self) -> int:
        """B."""
        return int(self.signature["batch_size"])

    @property
    def listed(self) -> int:
        """How many rows the list has."""
        return int(self.signature["number_of_inputs"])

    @property
    def shard(self) -> str | None:
        """As it was asked for: "3/8"."""
        found = self.provenance["options"].get("shard")
        return None if found is None else str(found)


def read_part(path: str) -> Part:
    """Read what a part says of itself.

    Raises:
        MergeError: It is unfinished, or does not say which rows of which run it has.
        LayerprobeError: It cannot be read.
    """
    try:
        with open_output(path) as reader:
            record = reader.provenance
    except NoInputError:
        if os.path.lexists(unfinished_name(path)):
            raise MergeError(f"part {path!r} is unfinished: run its command again with --resume.") from None
        raise
    try:
        signature = dict(record["run"]["signature"])
        signature.pop("compress", None)  # parts need not be compressed alike
        part = Part(path, range(*signature.pop("rows")), signature, record, format_of(path))
        _ = part.batch_size, part.listed, part.shard, part.provenance["run"]["id"]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise MergeError(
            f"{path!r} does not say which rows of which run it has: it cannot be merged."
        ) from error
    if signature["model"] is None:
        raise MergeError(
            f"{path!r} is of a model that was in no file, so that nothing tells what it is a part of."
        )
    return part


def check_whole(parts: Sequence[Part]) -> list[Part]:
    """Check that the parts are all of one run, and have each row of its list once.

    Returns:
        The parts in the order of their rows.

    Raises:
        MergeError: They are not; the message names every fault.
    """
    # What most of them are is what is being merged: the first one may be the stranger.
    texts = [json.dumps(part.signature, sort_keys=True) for part in parts]
    usual = Counter(texts).most_common(1)[0][0]
    ours = [part for part, text in zip(parts, texts, strict=True) if text == usual]
    ours.sort(key=lambda part: (part.rows.start, part.rows.stop))
    strangers = [_strange(part, ours[0]) for part, text in zip(parts, texts, strict=True) if text != usual]
    faults = [*_few(strangers), *_few(list(_doubles(ours))), *_few(list(_gaps(ours)))]
    if faults:
        raise MergeError(f"these parts do not make one whole: {'; '.join(faults)}.")
    return ours


def _few(faults: list[str]) -> list[str]:
    """Not a page of them."""
    more = len(faults) - LISTED
    return faults if more <= 0 else [*faults[:LISTED], f"and {more} more like that"]


def _strange(part: Part, other: Part) -> str:
    found = difference(other.signature, part.signature)
    assert found is not None
    what, theirs, its = found
    return (
        f"{part.path!r} is of another run than {other.path!r}, for its {what} is {its} "
        f"and there it is {theirs}"
    )


def _doubles(parts: Sequence[Part]) -> Iterator[str]:
    """Say which rows are in two parts; the parts are in the order of their rows."""
    last = parts[0]
    for part in parts[1:]:
        if part.rows.start < last.rows.stop:
            both = range(part.rows.start, min(part.rows.stop, last.rows.stop))
            yield f"{_named(both, part)} both in {last.path!r} and in {part.path!r}"
        last = max(last, part, key=lambda part: part.rows.stop)


def _gaps(parts: Sequence[Part]) -> Iterator[str]:
    """Say which rows are in no part; the parts are in the order of their rows."""
    end = 0
    for part in [*parts, None]:
        start = parts[0].listed if part is None else part.rows.start
        if start > end:
            yield f"{_named(range(end, start), parts[0])} missing"
        end = max(end, start if part is None else part.rows.stop)


def _named(rows: range, part: Part) -> str:
    """Say "rows 24 to 35 of 96 (shard 3/8) are", counted from 0; without the shards where `part` was none."""
    one = len(rows) == 1
    text = f"row {rows[0]}" if one else f"rows {rows[0]} to {rows[-1]}"
    shards = [] if part.shard is None else _shards_of(rows, part)
    which = f" (shard {', '.join(shards)})" if shards else ""
    return f"{text} of {part.listed}{which} {'is' if one else 'are'}"


def _shards_of(rows: range, part: Part) -> list[str]:
    """Which shards these rows are exactly; none where they are not."""
    assert part.shard is not None
    count = parse_shard(part.shard).count
    batches = -(-part.listed // part.batch_size)
    # No more than one shard begins in a batch, so that few have to be looked at.
    first = rows.start // part.batch_size * count // batches
    last = min(count, -(-rows.stop // part.batch_size) * count // batches + 1)
    found = []
    for number in range(max(1, first), last + 1):
        place = rows_of(parse_shard(f"{number}/{count}"), part.listed, part.batch_size)
        if place.start >= rows.start and place.stop <= rows.stop:
            found.append((f"{number}/{count}", place))
    whole = bool(found) and (found[0][1].start, found[-1][1].stop) == (rows.start, rows.stop)
    return [name for name, _ in found] if whole else []


def reopen(part: Part) -> Reader:
    """Open a part again. Raises MergeError when it is not what it was."""
    reader = open_output(part.path)
    if reader.provenance != part.provenance or len(reader.paths) != len(part.rows):
        reader.close()
        raise MergeError(f"part {part.path!r} is damaged, or was changed meanwhile: extract it again.")
    return reader
