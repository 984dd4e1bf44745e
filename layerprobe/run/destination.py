"""Where an output goes: a path of this machine, or a store to which it is brought when it is complete."""

from __future__ import annotations

import dataclasses
import os
import time

from layerprobe.errors import LayerprobeError, OutputError, UsageError
from layerprobe.formats.disk import discard, reported
from layerprobe.options import ExtractOptions
from layerprobe.run.report import RunReport
from layerprobe.stores.upload import StoredOutput
from layerprobe.stores.urls import is_url, without_file


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
        if self.path is not None and is_url(self.path) and self.path.rstrip("/").endswith(".zarr"):
            raise UsageError(
                "a Zarr group is not uploaded, for it is many files: give -o NAME.zarr and copy that, "
                "or another format."
            )
        self._stored = StoredOutput(self.path) if self.path is not None and is_url(self.path) else None
        if self._stored is not None:
            self.path = self._stored.path

    @property
    def name(self) -> str | None:
        """What the output is called in its store; None: it goes to none."""
        return None if self._stored is None else self._stored.name

    def check(self, how: ExtractOptions) -> None:
        """See that nothing is in the way in the store, and what an earlier run left to be uploaded.

        Raises:
            OutputError: Something is, and nobody said what to do.
            AccessError: The store does not let us look.
            UnavailableError: The store fails.
        """
        if self._stored is None:
            return
        waits = os.path.lexists(self._stored.path)
        if waits and not (how.overwrite or how.resume or how.restart):
            raise OutputError(
                f"{self._stored.name!r} is complete in {self._stored.path!r} and waits to be uploaded: "
                "give --resume to do that or --restart to begin again."
            )
        if not (how.overwrite or how.resume):
            self._stored.check_free()
        if waits and how.restart:
            with reported(self._stored.path):
                discard(self._stored.path)

    def problem(self, how: ExtractOptions) -> LayerprobeError | None:
        """Tell what `check` would raise; nothing is changed."""
        try:
            self.check(dataclasses.replace(how, restart=False, resume=how.resume or how.restart))
        except LayerprobeError as error:
            return error
        return None

    @property
    def finished(self) -> str | None:
        """Where the output is, if it was finished before: in the store, unless it waits to be uploaded."""
        if self._stored is None or os.path.lexists(self._stored.path):
            return self.path
        return self._stored.url if self._stored.find() is not None else self.path

    def bring(self) -> bool:
        """Bring what was written to its store, if it goes to one; whether there was anything to bring.

        Raises:
            WriteError: The store fails. The output stays where it was written.
            AccessError: The store does not let us write.
        """
        if self._stored is None or not os.path.lexists(self._stored.path):
            return False
        self._stored.upload()
        return True

    def deliver(self, report: RunReport) -> RunReport:
        """Bring a run's output to its store, if it goes to one; raises as `bring`."""
        if self._stored is None:
            return report
        began, notes = time.perf_counter(), report.notes
        if self.bring():
            place = os.path.dirname(self._stored.path)
            notes = (*notes, f"written to {place} first, and uploaded from there")
        spent = time.perf_counter() - began
        seconds = {**report.seconds, "upload": round(spent, 4)}
        seconds["total"] = round(seconds.get("total", 0.0) + spent, 4)
        return dataclasses.replace(report, output=self._stored.name, notes=notes, seconds=seconds)
