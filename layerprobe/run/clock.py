"""How long a run is busy with each of its stages."""

from __future__ import annotations

import threading
import time


class Clock:
    """Seconds per stage, added up over threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, stage: str, since: float) -> float:
        """Count the time from `since` (of `time.perf_counter`) to now; gives now."""
        now = time.perf_counter()
        with self._lock:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + now - since
        return now
