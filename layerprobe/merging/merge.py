"""`merge`: joins the parts of one run, which several machines computed, to the output of the whole."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from layerprobe import registry
from layerprobe.columns import Packed
from layerprobe.errors import MergeError, OutputError, UsageError
from layerprobe.formats.placement import check_target, journal_name, resolved
from layerprobe.formats.row_texts import RowTexts
from layerprobe.formats.rows import checksums_of, combined
from layerprobe.formats.writing import check_compress, open_writer
from layerprobe.merging.parts import Part, check_whole, read_part, reopen
from layerprobe.options import ExtractOptions
from layerprobe.records import Provenance, TensorSpec, WrittenBlock
from layerprobe.run.destination import Destination
from layerprobe.run.journal import Journal
from layerprobe.run.plan import check_not_an_input, choose_output
from layerprobe.run.tally import Tally
from layerprobe.stores.urls import is_url, located, without_file

if TYPE_CHECKING:
    from layerprobe.protocols import Reader

BLOCK_BYTES = 8 * 2**20
"""So much is copied at once."""

Progress = Callable[[int, int, int], None]
"""Called with rows done, rows in all, and failed rows, after each block."""


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What `merge` did."""

    output: str
    rows: int
    failed: int
    """How many of them failed in the run."""
    parts: tuple[str, ...]
    """In the order of their rows."""
    virtual: bool = False
    """Whether the rows are still in the parts, and nowhere else."""


def merge(
    output: str | os.PathLike[str],
    parts: Sequence[str | os.PathLike[str]],
    *,
    virtual: bool = False,
    compress: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> MergeReport:
    """Join the parts of one run to one output, whose datasets are those of a run without shards.

    Args:
        output: As for `extract`; the parts may be of other formats, and in stores too.
        parts: What `extract` wrote with `shard`, in any order.
        virtual: Leave the rows in the parts, to which the output only refers: all of them HDF5, and to stay
            where they are, seen from the output.
        compress: How to compress the output, as for `extract`; parts may be compressed or not.
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
    where = Destination(output)
    where.check(ExtractOptions(overwrite=overwrite), "give --overwrite to merge again")
    path, file_format = choose_output(where.path, [])
    if compress is not None:
        check_compress(file_format, compress)
    if compress is not None and virtual:
        raise UsageError("the rows of a virtual file are in its parts: leave --compress or --virtual out.")
    given = [without_file(os.fspath(part)) for part in parts]
    if virtual and (far := [name for name in (where.name or path, *given) if is_url(name)]):
        raise UsageError(
            "a virtual output refers to files, from its own place to theirs: give paths of this machine, or "
            f"leave --virtual out. Received: {far[0]!r}"
        )
    found = [read_part(name) for name in given]
    check_not_an_input([path], (part.path for part in found))
    found = check_whole(found)
    if virtual:
        _check_virtual(path, file_format, found)
    check_target(path, file_format, overwrite)
    with where.place(), Journal(path, journal_name(path)) as journal:
        if journal.head is not None:
            raise OutputError(f"{path!r} is what an unfinished run writes: give another name.")
        report = _refer(path, found) if virtual else _join(path, file_format, found, compress, progress)
        where.bring(overwrite)
    return dataclasses.replace(report, output=where.name or path)


@dataclass(frozen=True, slots=True)
class _Texts:
    """What all parts together say of their rows."""

    names: Packed[str]
    failures: dict[int, str]
    fields: Packed[str]

    @property
    def rows(self) -> int:
        """N."""
        return len(self.names)

    def keys(self) -> Packed[str]:
        """What they are called."""
        return self.names

    def texts(self, rows: range) -> RowTexts:
        """Of some of them."""
        reasons = {row - rows.start: self.failures[row] for row in rows if row in self.failures}
        place = slice(rows.start, rows.stop)
        return RowTexts(self.names[place], reasons, self.fields[place])


def _texts(parts: Sequence[Part]) -> _Texts:
    texts = _Texts(Packed(), {}, Packed())
    for part in parts:
        with reopen(part) as reader:
            texts.names.extend(reader.paths)
            outcomes = enumerate(zip(reader.status, reader.error, strict=True), part.rows.start)
            texts.failures.update((row, error) for row, (status, error) in outcomes if status != "ok")
            fields = reader.fields or [{}] * len(part.rows)
            texts.fields.extend(json.dumps(field) if field else "" for field in fields)
    return texts


def _join(
    path: str, file_format: str, parts: Sequence[Part], compress: str | None, progress: Progress | None
) -> MergeReport:
    """Copy every part, one after the other, to a new output."""
    texts = _texts(parts)
    size = parts[0].batch_size
    writer = open_writer(path, file_format, _specs(parts[0]), texts, compress=compress, batch_size=size)
    try:
        for part in parts:
            with reopen(part) as reader:
                for rows, block in _checked(part, reader):
                    writer.write(rows.start, block)
                    if progress is not None:
                        progress(rows.stop, texts.rows, len(texts.failures))
        provenance = joined_provenance(parts, len(texts.failures), compress)
        writer.commit(texts.failures, provenance, texts.fields if any(texts.fields) else None)
    finally:
        writer.abort()
    return MergeReport(path, texts.rows, len(texts.failures), tuple(part.name for part in parts))


def _check_virtual(path: str, file_format: str, parts: Sequence[Part]) -> None:
    """Raise UsageError for what cannot refer, or be referred to."""
    strange = [
        part.path for part in parts if part.file_format != "hdf5" or part.provenance["run"].get("virtual")
    ]
    if file_format != "hdf5":
        strange.insert(0, path)
    if strange:
        raise UsageError(
            "only HDF5 files can refer to others, and only to such with rows of their own: leave --virtual "
            "out. "
            f"Received: {strange[0]!r}"
        )


def _refer(path: str, parts: Sequence[Part]) -> MergeReport:
    """Write an output that says in which part its rows are."""
    from layerprobe.formats.virtual import PartFile, VirtualWriter

    texts, folder = _texts(parts), os.path.dirname(resolved(path))
    files = [PartFile(os.path.relpath(os.path.realpath(part.path), folder), part.rows) for part in parts]
    writer = VirtualWriter(path, _specs(parts[0]), texts.names, files)
    try:
        for part in parts:
            with reopen(part) as reader:
                for block in _recorded(part, reader):
                    start, stop = part.rows.start + block.start, part.rows.start + block.stop
                    writer.adopt(WrittenBlock(start, stop, block.checksums))
        provenance = joined_provenance(parts, len(texts.failures))
        for told, file in zip(provenance.run["parts"], files, strict=True):
            told["path"] = file.path
        provenance = dataclasses.replace(provenance, run={**provenance.run, "virtual": True})
        writer.commit(texts.failures, provenance, texts.fields if any(texts.fields) else None)
    finally:
        writer.abort()
    return MergeReport(path, texts.rows, len(texts.failures), tuple(part.name for part in parts), True)


def _specs(part: Part) -> list[TensorSpec]:
    return [
        TensorSpec(
            layer["name"], tuple(layer["shape"]), layer["dtype"], layer["channel_axis"], layer["layer"]
        )
        for layer in part.provenance["layers"]
    ]


def _checked(part: Part, reader: Reader) -> Iterator[tuple[range, dict[str, Any]]]:
    """Give a part block by block, and see that it is what was written.

    Yields:
        Rows of the whole, and (n, ...) arrays by layer.
    """
    # Mapped anew for each block: what stays mapped counts as memory of this process. Formats without places
    # for rows give nothing less than a whole layer.
    layers: Any = {name: reader[name] for name in reader} if part.file_format in registry.STREAMS else reader
    sizes = {name: layers[name][:1].nbytes for name in reader}
    step = max(1, BLOCK_BYTES // max(1, sum(sizes.values())))
    # What is compressed is cut where batches begin.
    step = max(step - step % part.batch_size, 1) if step >= part.batch_size else step
    for recorded in _recorded(part, reader):
        found = dict.fromkeys(reader, 0)
        for start in range(recorded.start, recorded.stop, step):
            stop = min(start + step, recorded.stop)
            block = {name: layers[name][start:stop] for name in reader}
            for name, checksum in checksums_of(block).items():
                found[name] = combined(found[name], checksum, (stop - start) * sizes[name])
            yield range(part.rows.start + start, part.rows.start + stop), block
        if recorded.checksums and found != recorded.checksums:
            raise MergeError(
                f"part {part.path!r} is damaged, its rows {recorded.start} to {recorded.stop - 1} are not "
                "what was written (CRC-32): extract it again."
            )


def _recorded(part: Part, reader: Reader) -> Iterator[WrittenBlock]:
    """Give the blocks of a part of which it records checksums; one without any, where it has none."""
    if reader.checksums is None:
        yield WrittenBlock(0, len(part.rows), {})
        return
    starts = reader.checksums["rows"]
    for number, (start, stop) in enumerate(pairwise([*starts, len(part.rows)])):
        yield WrittenBlock(start, stop, {name: reader.checksums["crc32"][name][number] for name in reader})


def joined_provenance(parts: Sequence[Part], failed: int, compress: str | None = None) -> Provenance:
    """Say of the whole what a run without shards would say, and where it comes from."""
    first = parts[0].provenance
    record = {field.name: first[field.name] for field in dataclasses.fields(Provenance)}
    tally = Tally()
    for told in (Tally.of(part.provenance) for part in parts):
        tally.add(told.several_frames, told.overflows)
    listed = parts[0].listed
    record["inputs"] = first["inputs"] | {
        "rows": listed,
        "part": None,
        "failed": failed,
        "several_frames": tally.several_frames,
        "overflows": tally.overflows,
    }
    record["options"] = first["options"] | {"shard": None, "compress": compress}
    record["started"] = min(part.provenance["started"] for part in parts)
    record["run"] = {
        "id": secrets.token_hex(8),
        "signature": {**parts[0].signature, "rows": [0, listed], "compress": compress},
        "parts": [
            {
                "path": located(part.path),
                "rows": [part.rows.start, part.rows.stop],
                "id": part.provenance["run"]["id"],
                "versions": part.provenance["versions"],
            }
            for part in parts
        ],
    }
    return Provenance(**record)
