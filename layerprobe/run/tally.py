"""What is counted of the rows of a run, of earlier runs' too that it goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Tally:
    """Images with several frames, values that float16 could not hold, and workers that died over them."""

    def __init__(self) -> None:
        self.several_frames = 0
        """Of so many images the first of several frames was taken."""
        self.overflows: dict[str, int] = {}
        """Layer -> values that became infinite because float16 cannot hold them."""
        self.workers_lost = 0
        """So often a worker of this run died; no output tells."""

    def add(self, several_frames: int, overflows: Mapping[str, int]) -> None:
        """Count in some rows."""
        self.several_frames += several_frames
        for layer, count in overflows.items():
            self.overflows[layer] = self.overflows.get(layer, 0) + count

    @classmethod
    def of(cls, provenance: Mapping[str, Any]) -> Tally:
        """What a finished output says; earlier versions did not count overflows."""
        tally = cls()
        inputs = provenance["inputs"]
        tally.add(inputs.get("several_frames", 0), inputs.get("overflows", {}))
        return tally
