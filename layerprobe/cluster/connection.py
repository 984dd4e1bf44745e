"""The way to a Ray cluster, and whether it has room for workers."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from layerprobe.errors import UnavailableError

# A cluster that is started here for one run reports nothing to anybody.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray

if TYPE_CHECKING:
    from layerprobe.run.cluster_options import ClusterOptions

SECONDS_TO_CONNECT = 5
ANY = "ray"
"""The cluster that this machine belongs to (`RAY_ADDRESS`, or `ray start`), else one that is started here."""


def connect(address: str) -> ExitStack:
    """Connect to a cluster, unless this process is connected; closing what is given ends that.

    Raises:
        UnavailableError: There is none at that address, or it is of another version.
    """
    on_close = ExitStack()
    if ray.is_initialized():
        return on_close
    wanted = address if address != ANY else os.environ.get("RAY_ADDRESS") or _latest()
    if wanted is not None:
        _check_listening(wanted)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(wanted or "local", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
        raise _unreachable(address, error) from error
    finally:
        # Ray's own handler would end this process without a word of how to resume.
        signal.signal(signal.SIGTERM, handler)
    on_close.callback(ray.shutdown)
    return on_close


def _latest() -> str | None:
    """The cluster that `ray start` began on this machine, unless it has ended without a word."""
    folder = os.environ.get("RAY_TMPDIR", os.path.join(os.sep, "tmp"))
    try:
        with open(os.path.join(folder, "ray", "ray_current_cluster")) as file:
            address = file.read().strip()
        _check_listening(address)
    except (OSError, UnavailableError):
        return None
    return address


def _check_listening(address: str) -> None:
    """Raise UnavailableError where nothing listens: Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():  # "auto" and "local" are Ray's to understand.
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_CONNECT).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> UnavailableError:
    told = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return UnavailableError(
        f"no Ray cluster can be reached at {address!r} ({told[:200]}): start one there with `ray start`, or "
        "give --cluster ray to compute on one that is started here."
    )


def room(cluster: ClusterOptions) -> int:
    """How many workers the nodes have room for, when nothing else runs there; at least one."""
    return max(1, sum(_fitting(node, cluster) for node in _nodes()))


def has_room(cluster: ClusterOptions) -> bool:
    """Whether there is a node that is large enough for a worker."""
    return any(_fitting(node, cluster) for node in _nodes())


def _nodes() -> list[dict[str, float]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def _fitting(resources: Mapping[str, float], cluster: ClusterOptions) -> int:
    wanted = {"CPU": cluster.cpus, "GPU": cluster.gpus}
    return min(int(resources.get(name, 0) / count) for name, count in wanted.items() if count)
