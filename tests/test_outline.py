"""What a run will be is known before its model is loaded, and is what it then is."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up_model import use_made_up_model, write_inputs
from small_models import dense, document, write_keras

from layerprobe import pipeline
from layerprobe.errors import WriteError
from layerprobe.formats import disk
from layerprobe.modelfile.weights import Weights
from layerprobe.options import ModelOptions
from layerprobe.records import TensorSpec
from layerprobe.run import request
from layerprobe.run.probed_model import ProbedModel

SAMPLES = Path(__file__).parent.parent / "sample_models"


@pytest.mark.parametrize("model", ["vgg_shapes.h5", "nested_shapes.keras", "two_inputs.keras"])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_an_outline_is_what_the_engine_then_is(model: str, batch_size: int | None) -> None:
    probed = ProbedModel(str(SAMPLES / model), ["**/*conv*", "output"], ModelOptions(), "graph")
    planned = probed.outline(probed.inputs, batch_size=batch_size)
    engine = probed.engine(probed.inputs, batch_size=batch_size)
    assert planned.outputs == engine.outputs
    assert planned.describe() == engine.describe()
    assert (planned.batch_size, planned.finish) == (engine.batch_size, engine.finish)


def test_a_sequential_model_has_an_outline(tmp_path: Path) -> None:
    write_keras(tmp_path / "model.keras", document(dense("first", 3), dense("last", 2)))
    probed = ProbedModel(str(tmp_path / "model.keras"), ["first", "output"], ModelOptions(), "graph")
    planned = probed.outline(probed.inputs, batch_size=4)
    assert planned.outputs == probed.engine(probed.inputs, batch_size=4).outputs


def test_an_outline_reads_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Weights, "arrays", lambda *_: pytest.fail("weights were read"))
    probed = ProbedModel(str(SAMPLES / "vgg_shapes.h5"), ["output"], ModelOptions(), "graph")
    assert probed.outline(probed.inputs, batch_size=2).outputs == (
        TensorSpec("output", (6,), "float32", -1, ""),
    )


def test_a_large_model_is_not_loaded_where_its_output_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = write_inputs(tmp_path / "images")
    use_made_up_model(monkeypatch)
    monkeypatch.setattr(request.ProbedModel, "takes_long_to_load", True)
    monkeypatch.setattr(request.ProbedModel, "engine", lambda *_, **__: pytest.fail("it was loaded"))
    monkeypatch.setattr(disk, "free_space", lambda _: 1 << 10)
    with pytest.raises(WriteError) as caught:
        pipeline.extract("model.h5", inputs, ["block/map"], str(tmp_path / "out.h5"))
    # 50 rows of 8 x 8 x 3 float32
    assert "it needs 37.5 KiB and 1 KiB are free, so free 36.5 KiB" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
