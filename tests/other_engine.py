"""Imported in a worker process: from the N-th time it is asked on, its engine says that it is another one."""

import itertools
import os
from typing import Any

from layerprobe.engines.graph.engine import GraphEngine

describe, calls = GraphEngine.describe, itertools.count(1)


def described(self: GraphEngine) -> dict[str, Any]:
    other = next(calls) >= int(os.environ["OTHER_ENGINE_FROM"])
    return describe(self) | ({"device": "moon"} if other else {})


GraphEngine.describe = described  # type: ignore[method-assign]
