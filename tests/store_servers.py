"""Stores on the loopback interface, which fail as networks do: moto's S3, and a web server with ranges."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

STALL_SECONDS = 3.0

Application = Callable[..., Iterable[bytes]]
Faults = Callable[[str, str, int], "str | None"]
"""Method, path and how often it was asked for, from 1 -> "cut", "stall", a status such as "503", or None."""


def no_faults(method: str, path: str, number: int) -> str | None:
    return None


def at_random(seed: int, often: float = 0.4, most: int = 3) -> Faults:
    """Cut bodies and answers of 503, at most `most` times for one object; the same for the same seed."""

    def fault(method: str, path: str, number: int) -> str | None:
        drawn = random.Random(f"{seed} {method} {path} {number}")
        return drawn.choice(("cut", "503")) if number <= most and drawn.random() < often else None

    return fault


class Served:
    """A WSGI application behind faults, on a port of its own. Counts requests by method."""

    def __init__(self, application: Application, faults: Faults = no_faults, ssl_context: Any = None) -> None:
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        self._application, self.faults = application, faults
        self.requests: Counter[str] = Counter()
        self.faulty: Counter[str] = Counter()
        self.sent = 0
        """Bytes of bodies, but for those that were cut."""
        self._seen: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, ssl_context=ssl_context)
        self._server.daemon_threads = True
        protocol = "http" if ssl_context is None else "https"
        self.url = f"{protocol}://127.0.0.1:{self._server.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        with self._lock:
            self.requests[method] += 1
            self._seen[method, path] += 1
            number = self._seen[method, path]
        fault = self.faults(method, path, number)
        if fault is None:
            return self._whole(environ, start)
        self.faulty[fault] += 1
        if fault.isdigit():
            start(f"{fault} made up", [("Content-Length", "0")])
            return [b""]
        if fault == "stall":
            time.sleep(STALL_SECONDS)
            return self._whole(environ, start)
        return _cut(b"".join(self._application(environ, start)))

    def _whole(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        body = list(self._application(environ, start))
        with self._lock:
            self.sent += sum(map(len, body))
        return body


def _cut(body: bytes) -> Iterator[bytes]:
    yield body[: len(body) // 2]
    raise ConnectionAbortedError("cut in the middle, as the test wants it")


class Files:
    """A web server's files: GET and HEAD with ranges and ETags, folders as pages of links."""

    def __init__(self, files: dict[str, bytes], ranges: bool = True) -> None:
        self.files, self._ranges = files, ranges

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"].lstrip("/").encode("latin-1").decode()
        data = self.files.get(path)
        if data is None:
            within = {name[len(path) :].partition("/")[0] for name in self.files if name.startswith(path)}
            if not path.endswith("/") or not within:
                start("404 Not Found", [("Content-Length", "0")])
                return [b""]
            deeper = {name for name in within if f"{path}{name}" not in self.files}
            names = sorted(f"{name}/" if name in deeper else name for name in within)
            page = "".join(f'<a href="{name}">{name}</a>\n' for name in names).encode()
            start("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(page)))])
            return [page]
        tag = hashlib.md5(data).hexdigest()
        headers = [("ETag", f'"{tag}"'), ("Content-Type", "application/octet-stream")]
        status, found = "200 OK", re.fullmatch(r"bytes=(\d+)-(\d*)", environ.get("HTTP_RANGE", ""))
        if found is not None and self._ranges:
            first, last = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
            headers.append(("Content-Range", f"bytes {first}-{last}/{len(data)}"))
            status, data = "206 Partial Content", data[first : last + 1]
        start(status, [*headers, ("Content-Length", str(len(data)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [data]


@contextlib.contextmanager
def web(files: dict[str, bytes], faults: Faults = no_faults, ranges: bool = True) -> Iterator[Served]:
    served = Served(Files(files, ranges), faults)
    try:
        yield served
    finally:
        served.close()


@contextlib.contextmanager
def s3(faults: Faults = no_faults) -> Iterator[Served]:
    """An empty S3, moto's; see `s3_environment`."""
    from moto.server import DomainDispatcherApplication, create_backend_app

    with contextlib.redirect_stderr(io.StringIO()):
        served = Served(DomainDispatcherApplication(create_backend_app), faults)
    try:
        yield served
    finally:
        served.close()


def s3_environment(served: Served) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "very-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": served.url,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
