"""The doctor and a network that Keras has trained; `benchmarks/preprocessing.py` has more of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import layerprobe

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_preset_that_a_network_was_trained_with_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    sys.modules.pop("preprocessing", None)
    import preprocessing

    how = preprocessing.Trained(
        "tf", build=preprocessing.nested
    )  # with a momentum that few steps suffice for
    preprocessing.train(how, tmp_path / "model.keras", count=500, epochs=5)
    found = layerprobe.doctor(tmp_path / "model.keras", [str(preprocessing.shown(tmp_path / "pictures"))])
    assert (found.evidence, found.layers) == ("statistics", ("backbone/bn1",))
    assert found.presets[0].family == "tf"
    assert found.preprocessing.preset in ("tf", "bgr:tf")
