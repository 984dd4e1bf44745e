"""A run whose batches are computed elsewhere, as its own process sees it, whoever computes them.

    with crew:                          # one worker has loaded the model
        run = prepare_run(crew.model, ...)   # which is not loaded here
        ...
        crew.fill(run, writer, ...)     # rows come in any order

Workers put rows at their places in the output by themselves; here they are brought to disk and noted in the
journal. They share no state: what one that died had not reported is done again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Self

from layerprobe.errors import StoppedError, UnavailableError
from layerprobe.run.identity import difference
from layerprobe.stores.attempts import add_repeated
from layerprobe.workers.remote import Described, RemoteModel

if TYPE_CHECKING:
    from layerprobe.formats.places import RowPlaces
    from layerprobe.protocols import PlacedWriter
    from layerprobe.run.clock import Clock
    from layerprobe.run.journal import Journal
    from layerprobe.run.loop import Progress, Run, Stop
    from layerprobe.workers.remote import Counts, Written


class Crew(ABC):
    """The workers of one run; see the module.

    Args:
        clock: Counts the seconds of each stage; those of workers as if one had done what each did.
    """

    model: RemoteModel
    """The model, as far as this process has to know it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._described: Described | None = None
        self._counts: dict[object, Counts] = {}
        """By process, for one that died has counted too."""
        self.lost = 0
        """So often a worker died."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many work at the same time, at most."""

    @abstractmethod
    def work(
        self, starts: Sequence[int], places: RowPlaces
    ) -> Generator[tuple[object, Written] | None, None, None]:
        """Have batches computed and put at their places.

        Args:
            starts: First rows of the batches.
            places: Where the rows go.

        Yields:
            What was written and in which process, once for each batch; None now and then while one waits.
        """

    @abstractmethod
    def close(self) -> None:
        """End all workers; a second call does nothing."""

    def fill(
        self,
        run: Run,
        writer: PlacedWriter,
        progress: Progress | None = None,
        journal: Journal | None = None,
        stop: Stop | None = None,
    ) -> None:
        """Have every row computed that is not there yet, as `Run.fill` does in this process."""
        run.failures.begin()
        total, left, done = len(run.feeds), run.left, run.rows_done
        if progress is not None:
            progress(done, total, len(run.failures))
        try:
            with closing(self.work(left, writer.places)) as work:
                for told in work:
                    if told is not None:
                        process, written = told
                        self.check(run, process, written)
                        self._counts[process] = written.counts
                        entry = written.entry
                        run.failures.add(entry.failures)
                        run.take(entry, writer)
                        if journal is not None:
                            journal.add(entry)
                            if journal.due:
                                run.checkpoint(writer, journal)
                        done += entry.block.stop - entry.block.start
                        if progress is not None:
                            progress(done, total, len(run.failures))
                    if stop is not None and done < total and stop():
                        raise StoppedError(f"stopped after {done} of {total} rows.")
        finally:
            self.close()
            self._sum_up(run)

    def meet(self, found: Described) -> None:
        """Learn from the first worker what computes, and see to it that the others compute the same."""
        if self._described is None:
            self._described, self.model = found, RemoteModel(found)
            return
        different = difference(self._described.signature, found.signature)
        if different is not None:
            what, one, other = different
            raise UnavailableError(
                f"workers would not compute alike, for the {what} is {one} in one and {other} in "
                "another: say which --engine and --device."
            )

    def check(self, run: Run, process: object, written: Written) -> None:
        """See to it that the engine of a worker is the one that was described, also after its first batch."""
        assert self._described is not None
        engine = written.counts.engine
        if engine != self._described.engine:
            raise UnavailableError(
                f"the {self._described.engine['name']} engine turned out not to compute this model as Keras "
                f"does: give --engine {engine['name']}."
            )

    def _sum_up(self, run: Run) -> None:
        """Count what the workers counted, and those that died."""
        run.tally.workers_lost += self.lost
        for counts in self._counts.values():
            self.model.built.batch_size = min(self.model.built.batch_size, counts.at_once)
            add_repeated(counts.repeated)
            for stage, seconds in counts.seconds.items():
                share = seconds / min(self.size, len(self._counts))
                self._clock.seconds[stage] = self._clock.seconds.get(stage, 0.0) + share

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
