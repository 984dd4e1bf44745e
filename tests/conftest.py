"""What all tests share. Slow fixtures live for the whole session: TensorFlow is imported once."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from layerprobe.engines.openvino_import import import_openvino

if TYPE_CHECKING:
    from chromium import Browser
    from store_servers import Served

# The gate says the same of the same code: examples are drawn alike in every run, on machines of any speed.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow takes oneDNN by itself on some processors only; it lacks dilated transposed convolutions without.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# Started in the background or under nohup, tests ignore these, and so would what they send them to.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, usual)

# Tests that import OpenVINO get it as the product does: by itself it reports each import over the network.
import_openvino()

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session", autouse=True)
def a_cache_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests, and the processes that they start, neither see nor fill the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYERPROBE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of sample models."""
    return ROOT / "sample_models"


@pytest.fixture
def beside_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: Path) -> None:
    """The test's own folder is the working directory, and `sample_models` is in it."""
    (tmp_path / "sample_models").symlink_to(samples)
    monkeypatch.chdir(tmp_path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the quick tests first: what is broken there is known in seconds."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def pytest_collection_finish() -> None:
    """Frameworks that were imported until now stay: what is garbage is found sooner without them."""
    gc.collect()
    gc.freeze()


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run the command line in this process: `command("layers", path, stdin=b"...")`."""
    from layerprobe import cli

    def run(*arguments: object, stdin: bytes = b"") -> Ended:
        monkeypatch.setattr(sys, "argv", ["layerprobe", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfd.readouterr()
        code = cli.run()
        sys.stdout.flush()
        return Ended(code, *capfd.readouterr())

    return run


@pytest.fixture
def made_up_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs compute with a model that is made up, and bring every batch to disk."""
    from made_up_model import use_made_up_model

    from layerprobe.run import journal

    use_made_up_model(monkeypatch)
    monkeypatch.setattr(journal, "SECONDS_BETWEEN_FLUSHES", 0)


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    """Images for that model, some of them broken."""
    from made_up_model import write_inputs

    return write_inputs(tmp_path / "images")


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report."""
    from report_samples import make_page

    return make_page(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser of these tests alone."""
    from chromium import chromium, find_chromium

    program = find_chromium()
    assert program is not None
    with chromium(program, tmp_path_factory.mktemp("profile") / "fresh") as opened:
        yield opened


@pytest.fixture
def browser(started: Browser) -> Iterator[Browser]:
    """The browser; whatever a test does, nothing may go wrong in it, and nothing be asked of a network."""
    started.resize(1280, 900)
    started.problems.clear()
    started.requests.clear()
    yield started
    assert started.problems == []
    assert {url.partition(":")[0] for url in started.requests} <= {"file", "data", "about"}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that fail are made again at once; how many were is counted anew, and servers are unknown."""
    from layerprobe.stores import attempts, servers

    monkeypatch.setattr(servers, "_servers", {})
    monkeypatch.setattr(attempts, "FIRST_PAUSE", 0.005)
    attempts.repeated_requests()


@pytest.fixture
def scratch(impatient: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Outputs for stores are written to `tmp_path / "scratch"` first."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))


@pytest.fixture(scope="module")
def s3() -> Iterator[Served]:
    """An S3 with an empty bucket, "bucket"."""
    import boto3
    import store_servers
    from s3fs import S3FileSystem

    from layerprobe.stores import store

    with store_servers.s3() as served, pytest.MonkeyPatch.context() as patch:
        for name, value in store_servers.s3_environment(served).items():
            patch.setenv(name, value)
        S3FileSystem.clear_instance_cache()
        store._store.cache_clear()
        boto3.client("s3", endpoint_url=served.url).create_bucket(Bucket="bucket")
        yield served


@pytest.fixture
def arguments(samples: Path, tmp_path: Path) -> list[str]:
    """A run of a few rows, one of them broken."""
    (tmp_path / "broken.png").write_text("no image")
    images = [samples / "images" / name for name in ("star_09.png", "ring_05.png", "cross_03.png")]
    images.insert(1, tmp_path / "broken.png")
    return [str(samples / "vgg_shapes.h5"), "-l", "conv5_3", "-l", "predictions", *map(str, images)]


@pytest.fixture(scope="session")
def images(samples: Path) -> dict[str, bytes]:
    """The sample images, by name."""
    return {path.name: path.read_bytes() for path in sorted((samples / "images").glob("*_*.*g"))}
