"""The loop of a run: batches of rows through the engine and the reduction into the writer."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import secrets
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from layerprobe.errors import ResourceError, StoppedError, UsageError
from layerprobe.formats.opening import open_output
from layerprobe.options import ExtractOptions, Finish
from layerprobe.records import Batch, Provenance, TensorSpec
from layerprobe.run.batches import batches, worker_threads
from layerprobe.run.bottleneck import bound_by
from layerprobe.run.clock import Clock
from layerprobe.run.earlier_rows import check_finished, earlier_rows, with_names
from layerprobe.run.entries import Entry, Head
from layerprobe.run.failures import Failures
from layerprobe.run.feeds import Feeds
from layerprobe.run.fitting import FittingEngine
from layerprobe.run.gathering import RunStatistics
from layerprobe.run.identity import signature
from layerprobe.run.joining import Joining
from layerprobe.run.journal import Journal
from layerprobe.run.keeping import kept_entries
from layerprobe.run.notes import notes
from layerprobe.run.provenance import describe_run
from layerprobe.run.ranges import BatchStarts, RowRanges
from layerprobe.run.refusals import without_refused
from layerprobe.run.report import RunReport
from layerprobe.run.resume import failures_of
from layerprobe.run.storing import Storing
from layerprobe.run.tally import Tally

if TYPE_CHECKING:
    from layerprobe.protocols import Collect, LoadedModel, Reader, RowStream, Writer
    from layerprobe.records import Array, WrittenBlock
    from layerprobe.statistics import LayerStatistics

Progress = Callable[[int, "int | None", int], None]
"""Called with rows done, rows in all (None: not known), and failed rows, after each batch."""

Stop = Callable[[], bool]
"""Whether the run shall end after the batch in hand."""

KEPT_FAILURES = 1000
"""So many failures are kept for the report; the output's `error` has them all."""


class Run:
    """One run, its parts built: `fill` a writer, `commit` it, `report`.

    Args:
        probed: The model, for the provenance.
        feeds: Its inputs.
        engine: What computes.
        how: The user's options.
        clock: Counts the seconds of each stage.
        batch_note: How the batch size was found, where it was.
    """

    def __init__(
        self,
        probed: LoadedModel,
        feeds: Feeds,
        engine: FittingEngine,
        how: ExtractOptions,
        clock: Clock,
        batch_note: str | None = None,
    ) -> None:
        self._probed, self.feeds, self._how, self._clock = probed, feeds, how, clock
        self.engine = engine
        self.batch_note = batch_note
        self.storing = Storing(self.engine, Finish(how.pool, how.dtype))
        self.failures = Failures(how)
        self._statistics = RunStatistics(self.stored) if how.stats else None
        self._done = RowRanges()
        """What is in the output, and was not computed here."""
        self._assigned: Sequence[int] | None = None
        """First rows of the only batches to compute; None: those that are not in the output."""
        self.tally = Tally()
        """Of everything that is in the output."""
        self._id = secrets.token_hex(8)
        self._started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

    @property
    def stored(self) -> tuple[TensorSpec, ...]:
        """What is stored of each of the engine's outputs, in the same order."""
        return self.storing.specs

    def adopt(self, writer: Writer, journal: Journal, *, in_order: bool = False) -> None:
        """Take the batches of an earlier run as they are, but for those of which a file was changed since.

        Where more of their rows failed than this run may have, it tries the batches of those again. With
        `in_order` rows come one after the other in the output: what is behind a gap is done again too.
        """
        assert journal.head is not None
        self._id, self._started = journal.head.run, journal.head.started
        kept = kept_entries(self.feeds, self.engine.batch_size, self.failures, journal, in_order=in_order)
        if self.feeds.rows is None:
            self.feeds.earlier = earlier_rows(journal.output, kept)
        for entry in kept:
            self.failures.adopt(entry.failures)
            self.take(entry, writer)

    def take(self, entry: Entry, writer: Writer) -> None:
        """Take a block as done, for it is at its place."""
        writer.adopt(entry.block)
        self._done.add(entry.block.start, entry.block.stop)
        self.tally.add(entry.several_frames, entry.overflows)

    @property
    def left(self) -> Sequence[int]:
        """First rows of the batches that are to be computed."""
        if self._assigned is not None:
            return self._assigned
        return BatchStarts(self._done.gaps(len(self.feeds)), self.engine.batch_size)

    @property
    def rows_done(self) -> int:
        """How many rows are in the output that were not computed here."""
        return len(self._done)

    def assign(self, starts: Sequence[int]) -> None:
        """Compute only the batches that begin with these rows: others compute the rest."""
        self._assigned = starts

    def leave_out(self, starts: Iterable[int]) -> None:
        """Compute no batches that begin with these rows."""
        size, rows = self.engine.batch_size, len(self.feeds)
        for start in starts:
            self._done.add(start, min(start + size, rows))

    def fill(
        self,
        writer: Writer,
        progress: Progress | None = None,
        journal: Journal | None = None,
        stop: Stop | None = None,
    ) -> None:
        """Compute every row that is not there yet and hand it to the writer, in order.

        While batch i is written here, i + 1 is computed and i + 2 decoded. What any of them raises ends the
        run; nothing goes on behind its back.

        Args:
            writer: Where the rows go.
            progress: Called before the first batch and after each.
            journal: Where it is noted now and then which rows are on disk; None: nowhere.
            stop: Asked after each batch.

        Raises:
            StoppedError: `stop` said so.
            FailedRowsError: More rows failed than the options allow; the last batch of them is left undone.
        """
        with closing(self.blocks(progress, stop)) as blocks:
            for batch, block in blocks:
                written = writer.write(batch.start, block)
                if journal is not None:
                    journal.add(self.entry(batch, written))
                    if journal.due:
                        self.checkpoint(writer, journal)

    def blocks(
        self, progress: Progress | None, stop: Stop | None
    ) -> Generator[tuple[Batch, dict[str, Array]], None, None]:
        """Give every batch that is not there yet, with what is stored of it; see `fill`."""
        self.failures.begin()
        rows = self.feeds.rows
        done = self.rows_done
        if progress is not None:
            progress(done, rows, len(self.failures))
        with closing(self.computed()) as computed:
            for batch, results in computed:
                self.failures.add(batch.failures)
                now = time.perf_counter()
                block = self.storing.block(batch, results)
                self.tally.add(batch.several_frames, self.storing.overflows)
                if self._statistics is not None:
                    self._statistics.add(block, batch.rows)
                now = self._clock.add("reduce", now)
                yield batch, block
                self._clock.add("write", now)
                done += batch.size
                if progress is not None:
                    progress(done, rows, len(self.failures))
                if stop is not None and done != rows and stop():
                    raise StoppedError(f"stopped after {done} of {rows or 'an unknown number of'} rows.")

    def checkpoint(self, writer: Writer, journal: Journal) -> None:
        """Bring what was written to disk, and into the journal."""
        if journal.head is None:
            journal.begin(Head(self._id, self._started, dict(writer.layout), self.signature))
        writer.sync()
        journal.flush(self._joining.joined)

    def entry(self, batch: Batch, written: WrittenBlock) -> Entry:
        """What the journal is to say of the block that was given last."""
        entry = Entry(written, batch.failures, batch.files, batch.several_frames, self.storing.overflows)
        return entry if self.feeds.rows is not None else with_names(entry, batch)

    @cached_property
    def _joining(self) -> Joining:
        return Joining(self.stored, len(self.feeds), self.engine.batch_size)

    @property
    def resumable(self) -> bool:
        """Whether a later run can do exactly what is left: of a model in a file, with nothing random."""
        return bool(self._probed.path) and not self._how.training

    @cached_property
    def signature(self) -> dict[str, Any]:
        """All that decides what the rows hold; of a stream not which they are, for only its end tells."""
        return signature(self._probed, self.feeds, self.engine, self.stored, self._how)

    def computed(self) -> Generator[tuple[Batch, dict[str, Array]], None, None]:
        """Every batch with its results, which stay as they are until the second batch after is asked for."""
        pending: deque[tuple[Batch, Collect]] = deque()
        try:
            with closing(self._batches()) as taken:
                for batch in taken:
                    now = time.perf_counter()
                    pending.append((batch, self.engine.start(batch.inputs) if batch.rows else dict))
                    self._clock.add("compute", now)
                    if len(pending) > 1:
                        yield self._first(pending)
                while pending:
                    yield self._first(pending)
        finally:
            # After an error too: the engine still reads the memory of the batches that it was given.
            for _, collect in pending:
                with suppress(Exception):
                    collect()

    def _first(self, pending: deque[tuple[Batch, Collect]]) -> tuple[Batch, dict[str, Array]]:
        """What the engine gives for a batch, and the batch without the rows that the model cannot take."""
        now = time.perf_counter()
        batch, collect = pending[0]
        try:
            results = collect()
        except (UsageError, ResourceError) as error:
            if self._how.training:  # Rows influence each other then: to leave one out changes the others.
                raise
            if isinstance(error, ResourceError) and self.engine.at_once > 1:  # It has no other batch size.
                raise
            batch = without_refused(batch, self.engine)
            results = self.engine.run(batch.inputs) if batch.rows else {}
        pending.popleft()
        self._clock.add("compute", now)
        return batch, results

    def _batches(self) -> Generator[Batch, None, None]:
        """Every batch that is not there yet; the time that is spent waiting for them counts as "input"."""
        workers = worker_threads(self._how, self.feeds)
        wanted = None if self.feeds.rows is None else self.left
        size, room = self.engine.batch_size, self.engine.halved
        with closing(batches(self.feeds, size, workers, wanted, room)) as taken:
            now = time.perf_counter()
            for batch in taken:
                self._clock.add("input", now)
                yield batch
                now = time.perf_counter()

    def commit(self, writer: Writer, provenance: Provenance | None = None) -> None:
        """Give the output its name; raises AllInputsFailedError instead when there is nothing in it."""
        self.failures.check_not_all(len(self.feeds), self._how)
        now = time.perf_counter()
        writer.commit(self.failures.by_row, provenance or self.provenance(), self.feeds.fields())
        self._clock.add("write", now)

    def finish(self, stream: RowStream) -> None:
        """End the stream; raises AllInputsFailedError instead when there is nothing in it."""
        self.failures.check_not_all(len(self.feeds), self._how)
        now = time.perf_counter()
        stream.commit(self.provenance())
        self._clock.add("write", now)

    def report(self, path: str) -> RunReport:
        """What was done, after `commit`."""
        return RunReport(
            output=path,
            rows=len(self.feeds),
            failures=tuple(itertools.islice(self.failures, KEPT_FAILURES)),
            failed=len(self.failures),
            layers=self.stored,
            seconds={stage: round(seconds, 4) for stage, seconds in self._clock.seconds.items()},
            bound_by=bound_by(self._clock.seconds),
            notes=tuple(notes(self._probed.note, self)),
            statistics=None if self._statistics is None else self._gathered(self._statistics, path),
        )

    def _gathered(self, statistics: RunStatistics, path: str) -> dict[str, LayerStatistics]:
        """The statistics, with the rows of earlier runs, which are read back."""
        if self._done:
            with open_output(path) as reader:
                statistics.add_written(reader, list(self._done))
        return statistics.results

    def nothing_to_do(self, finished: Reader) -> RunReport:
        """What is there, instead of `fill` and `commit`, when an earlier run was this one and finished.

        A stream is read to its end for that; raises ResumeError when other rows came.
        """
        if self.feeds.rows is None:
            check_finished(self.feeds, finished)
        self.failures.adopt(failures_of(finished))
        self.failures.begin()
        self.failures.close()
        self._done.add(0, len(self.feeds))
        report = self.report(finished.path)
        return dataclasses.replace(report, notes=("it was finished already: there was nothing to do",))

    def provenance(self) -> Provenance:
        """Where the numbers come from."""
        full = signature(self._probed, self.feeds, self.engine, self.stored, self._how, ended=True)
        return describe_run(
            *(self._probed, self.feeds, self.engine, self.stored, self._how),
            failed=len(self.failures),
            tally=self.tally,
            started=self._started,
            run={"id": self._id, "signature": full},
        )
