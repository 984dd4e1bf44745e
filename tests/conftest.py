"""What all tests share. Slow fixtures live for the whole session: TensorFlow is imported once."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of sample models."""
    return ROOT / "sample_models"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the quick tests first: what is broken there is known in seconds."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
