"""What all tests share. Slow fixtures live for the whole session: TensorFlow is imported once."""

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the quick tests first: what is broken there is known in seconds."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


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
