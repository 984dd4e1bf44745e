"""`merge`: joins the parts of one run, which several machines computed, to the output of the whole."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from layerprobe import registry
from layerprobe.errors import MergeError, NoInputError, OutputError, UsageError
from layerprobe.formats.opening import open_output
from layerprobe.formats.placement import check_target, journal_name, unfinished_name
from layerprobe.formats.rows import combined
from layerprobe.journal import Journal, difference
from layerprobe.plan import check_not_an_input, choose_output
from layerprobe.records import Provenance, TensorSpec, WrittenBlock
from layerprobe.shards import parse_shard, rows_of

if TYPE_CHECKING:
    from layerprobe.protocols import Reader, Writer

BLOCK_BYTES = 8 * 2**20
"""So much is copied at once."""
LISTED = 5
"""So many gaps, doubles or strangers are named."""

Progress = Callable[[int, int, int], None]
"""Called with rows done, rows in all, and failed rows, after each block."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one part says of itself."""

    path: str
    rows: range
    """Which of the list's it has."""
    signature: Mapping[str, Any]
    """Of its run, without what differs from part to part."""
    provenance: Mapping[str, Any]

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


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What `merge` did."""

    output: str
    rows: int
    failed: int
    """How many of them failed in the run."""
    parts: tuple[str, ...]
    """In the order of their rows."""


def merge(
    output: str | os.PathLike[str],
    parts: Sequence[str | os.PathLike[str]],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> MergeReport:
    """Join the parts of one run to one output, whose datasets are those of a run without shards.

    Args:
        output: `.npz`, `.h5`, `.hdf5`, or a folder; the parts may be of other formats.
        parts: What `extract` wrote with `shard`, in any order.
        overwrite: Replace an existing output.
        progress: Called after each block that is copied.

    Returns:
        What was joined.

    Raises:
        MergeError: The parts are not of one run, or do not have each row of its list once; every part and
            row at fault is named.
        LayerprobeError: A part cannot be read, or the output not be written; the output is then as it was.
    """
    if isinstance(parts, str | os.PathLike) or not parts:
        raise UsageError("merge needs a list of at least one part.")
    path, file_format = choose_output(os.fspath(output), [])
    found = [read_part(os.fspath(part)) for part in parts]
    check_not_an_input(path, (part.path for part in found))
    found = check_whole(found)
    check_target(path, file_format, overwrite)
    with Journal(path, journal_name(path)) as journal:
        if journal.head is not None:
            raise OutputError(f"{path!r} is what an unfinished run writes: give another name.")
        return _join(path, file_format, found, progress)


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
        part = Part(path, range(*signature.pop("rows")), signature, record)
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


def _join(path: str, file_format: str, parts: Sequence[Part], progress: Progress | None) -> MergeReport:
    """Copy every part to its place in a new output."""
    keys: list[str] = []
    failures: dict[int, str] = {}
    for part in parts:
        with _reopened(part) as reader:
            keys += reader.paths
            outcomes = enumerate(zip(reader.status, reader.error, strict=True), part.rows.start)
            failures.update((row, error) for row, (status, error) in outcomes if status != "ok")
    writer: Writer = registry.find(registry.WRITERS, file_format, "format")(path, _specs(parts[0]), keys)
    try:
        done = 0
        for part in parts:
            with _reopened(part) as reader:
                for done in _copied(part, reader, writer):
                    if progress is not None:
                        progress(done, len(keys), len(failures))
        writer.commit(failures, joined_provenance(parts, len(failures)))
    finally:
        writer.abort()
    return MergeReport(path, len(keys), len(failures), tuple(part.path for part in parts))


def _reopened(part: Part) -> Reader:
    reader = open_output(part.path)
    if reader.provenance != part.provenance or len(reader.paths) != len(part.rows):
        reader.close()
        raise MergeError(f"part {part.path!r} is damaged, or was changed meanwhile: extract it again.")
    return reader


def _specs(part: Part) -> list[TensorSpec]:
    return [
        TensorSpec(
            layer["name"], tuple(layer["shape"]), layer["dtype"], layer["channel_axis"], layer["layer"]
        )
        for layer in part.provenance["layers"]
    ]


def _copied(part: Part, reader: Reader, writer: Writer) -> Iterator[int]:
    """Copy one part, block by block, and see that it is what was written; gives the row after each block."""
    sizes = {name: reader[name][:1].nbytes for name in reader}
    step = max(1, BLOCK_BYTES // max(1, sum(sizes.values())))
    for block in _recorded(part, reader):
        found = dict.fromkeys(reader, 0)
        for start in range(block.start, block.stop, step):
            stop = min(start + step, block.stop)
            # Mapped anew each time: what stays mapped counts as memory of this process.
            rows = {name: reader[name][start:stop] for name in reader}
            written = writer.write(part.rows.start + start, rows)
            for name, size in sizes.items():
                checksum = written.checksums[name]
                found[name] = combined(found[name], checksum, (stop - start) * size)
            yield written.stop
        if block.checksums and found != block.checksums:
            raise MergeError(
                f"part {part.path!r} is damaged, its rows {block.start} to {block.stop - 1} are not what was "
                "written (CRC-32): extract it again."
            )


def _recorded(part: Part, reader: Reader) -> Iterator[WrittenBlock]:
    """Give the blocks of a part of which it records checksums; one without any, where it has none."""
    if reader.checksums is None:
        yield WrittenBlock(0, len(part.rows), {})
        return
    starts = reader.checksums["rows"]
    for number, (start, stop) in enumerate(pairwise([*starts, len(part.rows)])):
        yield WrittenBlock(start, stop, {name: reader.checksums["crc32"][name][number] for name in reader})


def joined_provenance(parts: Sequence[Part], failed: int) -> Provenance:
    """Say of the whole what a run without shards would say, and where it comes from."""
    first = parts[0].provenance
    record = {field.name: first[field.name] for field in dataclasses.fields(Provenance)}
    several = sum(part.provenance["inputs"]["several_frames"] for part in parts)
    listed = parts[0].listed
    record["inputs"] = first["inputs"] | {
        "rows": listed,
        "part": None,
        "failed": failed,
        "several_frames": several,
    }
    record["options"] = first["options"] | {"shard": None}
    record["started"] = min(part.provenance["started"] for part in parts)
    record["run"] = {
        "id": secrets.token_hex(8),
        "signature": {**parts[0].signature, "rows": [0, listed]},
        "parts": [
            {
                "path": os.path.abspath(part.path),
                "rows": [part.rows.start, part.rows.stop],
                "id": part.provenance["run"]["id"],
                "versions": part.provenance["versions"],
            }
            for part in parts
        ],
    }
    return Provenance(**record)
