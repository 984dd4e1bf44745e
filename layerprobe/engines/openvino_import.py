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
    later.convert_model = convert_model  # type: ignore[attr-defined]
    with _in_place_of(_CONVERTER, later), _in_place_of(_REPORTER, None), suppress(ModuleNotFoundError):
        import openvino  # noqa: F401


def convert_model(*arguments: Any, **keywords: Any) -> Any:
    """Do what `openvino.convert_model` does, imported at the first call, and report nothing."""
    with _in_place_of(_REPORTER, None):
        from openvino.tools.ovc import convert_model
    with _unreported():
        return convert_model(*arguments, **keywords)


@contextmanager
def _unreported() -> Iterator[None]:
    """Meanwhile nothing is sent, where somebody has imported OpenVINO with all that it does.

    For each kind of operation in a model it forks a process from a thread, of however many gigabytes this
    one has; and where Python collects a file of h5py meanwhile, the locks that both take end in a deadlock.
    """
    sender = getattr(sys.modules.get(f"{_REPORTER}.utils.sender"), "TelemetrySender", None)
    if sender is None:
        yield
        return
    send = sender.send
    sender.send = lambda *_: None
    try:
        yield
    finally:
        sender.send = send


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
