"""Where an output goes: a path of this machine, or a store to which it is brought when it is complete."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from layerprobe.errors import LayerprobeError, OutputError
from layerprobe.formats.disk import discard, reported
from layerprobe.formats.placement import check_replaceable, journal_name
from layerprobe.formats.remote import open_for_reading
from layerprobe.options import ExtractOptions
from layerprobe.registry import FOLDERS, SUFFIXES
from layerprobe.run.journal import Journal, check_free
from layerprobe.run.report import RunReport
from layerprobe.run.resume import claim
from layerprobe.stores.upload import BEGUN, StoredOutput
from layerprobe.stores.urls import is_url, without_file

_WAITING = "give --resume to do that or --restart to begin again"


class Destination:
    """Where one output goes.

    Args:
        output: A path or a URL; None: a path that follows the input's.

    Raises:
        LayerprobeError: There is no way to write to that URL.
    """

    def __init__(self, output: str | os.PathLike[str] | None) -> None:
        self.path = None if output is None else without_file(os.fspath(output))
        """Where it is written."""
        self._stored = StoredOutput(self.path) if self.path is not None and is_url(self.path) else None
        if self._stored is not None:
            self.path = self._stored.path

    @property
    def name(self) -> str | None:
        """What the output is called in its store; None: it goes to none."""
        return None if self._stored is None else self._stored.name

    def check(self, how: ExtractOptions, waiting: str = _WAITING) -> None:
        """See that nothing is in the way in the store, and what an earlier run left to be uploaded.

        Args:
            how: `overwrite`, `resume` and `restart` matter.
            waiting: What to do, in the words of the command, where something waits to be uploaded.

        Raises:
            OutputError: Something is, and nobody said what to do.
            BusyError: Another run has it here, and may be uploading it.
            AccessError: The store does not let us look.
            UnavailableError: The store fails.
        """
        if self._stored is None:
            return
        self._stored.check_bucket()
        waits = os.path.lexists(self._stored.path)
        if waits and how.lock:
            check_free(self._stored.name, journal_name(self._stored.path))
        if waits and not (how.overwrite or how.resume or how.restart):
            raise OutputError(
                f"{self._stored.name!r} is complete in {self._stored.path!r} and waits to be uploaded: "
                f"{waiting}."
            )
        if not (how.overwrite or how.resume):
            self._stored.check_free()
        else:
            self._check_replaceable(self._stored)

    @contextmanager
    def claimed(self, path: str, file_format: str, how: ExtractOptions) -> Iterator[Journal]:
        """Take hold of the output as `claim`, until it is where it goes to; raises as that and `check`."""
        if self._stored is None:
            with claim(path, file_format, how) as journal:
                yield journal
            return
        # What stands under its name here is no output that was finished: it waits.
        here = dataclasses.replace(how, overwrite=how.overwrite or how.restart)
        with self.place(), claim(path, file_format, here) as journal:
            if how.restart:  # not before: another run may be uploading it
                with reported(path):
                    discard(path)
            self._check_own(journal.head is not None, how)
            yield journal

    @contextmanager
    def place(self) -> Iterator[None]:
        """Have the folder in which the output waits for its upload, until nothing waits there."""
        if self._stored is None:
            yield
            return
        self._stored.make_place()
        try:
            yield
        finally:
            self._stored.leave_place()

    def _check_own(self, unfinished: bool, how: ExtractOptions) -> None:
        """Raise OutputError where a run goes on and another's output came to be in the store meanwhile."""
        goes_on = self._stored is not None and (unfinished or os.path.lexists(self._stored.path))
        if self._stored is not None and goes_on and not how.overwrite:
            self._stored.check_own()

    def _check_replaceable(self, stored: StoredOutput) -> None:
        """Raise OutputError where a folder is in the store that is not layerprobe's."""
        found = stored.find()
        if found is None or not found.is_folder:
            return
        suffix = os.path.splitext(stored.path)[1].lower()
        if SUFFIXES.get(suffix) not in FOLDERS:
            raise OutputError(f"{stored.name!r} is a folder and is not replaced: give -o for another name.")
        names = stored.names()
        if BEGUN not in names:

            def read(name: str) -> bytes:
                with open_for_reading(f"{stored.url}/{name}") as file:
                    return file.read()

            check_replaceable(stored.name, SUFFIXES[suffix], names, read)

    def problem(self, how: ExtractOptions, unfinished: bool) -> LayerprobeError | None:
        """Tell what `check` and `claimed` would raise of the store; nothing is changed.

        Args:
            how: As for them.
            unfinished: Whether there is an unfinished output to go on with.
        """
        try:
            self.check(how)
            if not how.restart:
                self._check_own(unfinished, how)
        except LayerprobeError as error:
            return error
        return None

    @property
    def finished(self) -> str | None:
        """Where the output is, if it was finished before: in the store, unless it waits to be uploaded."""
        if self._stored is None or os.path.lexists(self._stored.path):
            return self.path
        return self._stored.url if self._stored.find() is not None else self.path

    def bring(self, overwrite: bool) -> bool:
        """Bring what was written to its store, if it goes to one; whether there was anything to bring.

        Args:
            overwrite: Whether what another run put there may be replaced.

        Raises:
            OutputError: It is there, and may not. The output stays where it was written.
            WriteError: The store fails. The output stays where it was written.
            AccessError: The store does not let us write.
        """
        if self._stored is None or not os.path.lexists(self._stored.path):
            return False
        self._stored.upload(overwrite)
        return True

    def deliver(self, report: RunReport, how: ExtractOptions) -> RunReport:
        """Bring a run's output to its store, if it goes to one; raises as `bring`."""
        if self._stored is None:
            return report
        began, notes = time.perf_counter(), report.notes
        if self.bring(how.overwrite):
            place = os.path.dirname(self._stored.path)
            notes = (*notes, f"written to {place} first, and uploaded from there")
        spent = time.perf_counter() - began
        seconds = {**report.seconds, "upload": round(spent, 4)}
        seconds["total"] = round(seconds.get("total", 0.0) + spent, 4)
        return dataclasses.replace(report, output=self._stored.name, notes=notes, seconds=seconds)
