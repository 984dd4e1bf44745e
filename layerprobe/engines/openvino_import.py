"""OpenVINO imported for what it computes, without what its package does besides.

`import openvino` also imports its converter for other frameworks' models, which takes longer than all the
rest, and a package that writes to the user's home and starts a process that reports the import over the
network.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

_CONVERTER, _REPORTER = "openvino.tools.ovc", "openvino_telemetry"


def import_openvino() -> None:
    """Import it, unless it is already; where it is not installed, the next import of it says so."""
    if "openvino" in sys.modules:
        return
    later = ModuleType(_CONVERTER)
    later.convert_model = _convert_model  # type: ignore[attr-defined]
    with _in_place_of(_CONVERTER, later), _in_place_of(_REPORTER, None), suppress(ModuleNotFoundError):
        import openvino  # noqa: F401


def _convert_model(*arguments: Any, **keywords: Any) -> Any:
    """What `openvino.convert_model` is: the converter, imported at its first call."""
    with _in_place_of(_REPORTER, None):
        from openvino.tools.ovc import convert_model
    return convert_model(*arguments, **keywords)


@contextmanager
def _in_place_of(name: str, module: ModuleType | None) -> Iterator[None]:
    """Meanwhile `import name` gives another module, or fails for None, unless it was imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = module  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
