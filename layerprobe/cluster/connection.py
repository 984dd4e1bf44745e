"""The way to a Ray cluster, and whether it has room for workers."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from layerprobe.errors import UnavailableError

# A cluster that is started here for one run reports nothing to anybody.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.exceptions import RayError

from layerprobe.cluster.stdout import stdout_without

if TYPE_CHECKING:
    from layerprobe.run.cluster_options import ClusterOptions

SECONDS_TO_CONNECT = 5
EMPTY_SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""A frame of HTTP/2: no bytes, of type 4."""
TOKEN_REFUSED = "InvalidAuthToken"
LOCAL = "local"
"""A cluster that is started on this machine, and ends with the run."""
ANY = "ray"
"""The cluster that this machine belongs to (`RAY_ADDRESS`, or `ray start`), else one that is started here."""


class Connected(NamedTuple):
    """A cluster that this process is connected to."""

    on_close: ExitStack
    """Ends that when it is closed."""
    found: str | None = None
    """Where the cluster is, if it is one that was found here."""
    grows: bool = True
    """Whether nodes may join it: not one that was started here, for this run."""


def connect(address: str) -> Connected:
    """Connect to a cluster, unless this process is connected.

    Raises:
        UnavailableError: There is none at that address, or it is of another version.
    """
    on_close = ExitStack()
    if ray.is_initialized():
        return Connected(on_close)
    found = (os.environ.get("RAY_ADDRESS") or _latest()) if address == ANY else None
    wanted = address if address != ANY else found
    if wanted is not None:
        _check_listening(wanted)
    handler, before, rays = signal.getsignal(signal.SIGTERM), set(threading.enumerate()), set[Thread]()
    with on_close:
        on_close.enter_context(stdout_without(rays))
        try:
            ray.init(wanted or LOCAL, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError, RayError) as error:
            raise _unreachable(wanted or address, error) from error
        finally:
            # Ray's own handler would end this process without a word of how to resume.
            signal.signal(signal.SIGTERM, handler)
        rays.update(set(threading.enumerate()) - before)
        on_close.callback(_shut_down, rays)
        return Connected(on_close.pop_all(), found, grows=wanted not in (None, LOCAL))


def _shut_down(rays: set[Thread]) -> None:
    rays.add(threading.current_thread())  # Ray says at its end what it had kept back.
    ray.shutdown()


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
    """Raise UnavailableError where nothing listens, or what is no Ray: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():  # "auto" and "local" are Ray's to understand.
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_CONNECT) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                _check_speaks_grpc(connection)
    except (OSError, OverflowError) as error:
        raise _unreachable(address, error) from error


def _check_speaks_grpc(connection: socket.socket) -> None:
    """Begin HTTP/2, which both sides do with a frame of settings (RFC 9113, 3.4); raises OSError."""
    connection.settimeout(SECONDS_TO_CONNECT)
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + EMPTY_SETTINGS)
    with connection.makefile("rb") as answered:
        frame = answered.read(len(EMPTY_SETTINGS))
    if frame[3:4] != EMPTY_SETTINGS[3:4]:
        raise ConnectionError("what listens there is not Ray")


def _unreachable(address: str, error: BaseException) -> UnavailableError:
    if any(TOKEN_REFUSED in str(cause) for cause in _causes(error)):
        return UnavailableError(
            f"the Ray cluster at {address!r} asks for a token: set RAY_AUTH_MODE=token, and "
            "RAY_AUTH_TOKEN_PATH where it is not in ~/.ray/auth_token."
        )
    told = " ".join(str(error).split())[:300].rstrip(".: ") or type(error).__name__
    return UnavailableError(
        f"no Ray cluster can be reached at {address!r} ({told}): start one there with `ray start`, or "
        "give --cluster ray to compute on one that is started here."
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def capacity(cluster: ClusterOptions) -> int:
    """How many workers the nodes have room for, when nothing else runs there."""
    return sum(_fitting(node, cluster) for node in _nodes())


def needs(cluster: ClusterOptions) -> str:
    """Say what a worker needs of its node."""
    gpus = f" and {cluster.gpus:g} GPU{'s' * (cluster.gpus > 1)}" if cluster.gpus else ""
    return f"{cluster.cpus:g} CPU{'s' * (cluster.cpus > 1)}{gpus}"


def _nodes() -> list[dict[str, float]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def _fitting(resources: Mapping[str, float], cluster: ClusterOptions) -> int:
    wanted = {"CPU": cluster.cpus, "GPU": cluster.gpus}
    return min(int(resources.get(name, 0) / count) for name, count in wanted.items() if count)
