"""`layerprobe check --engines`: every engine against Keras."""

from __future__ import annotations

import json

import numpy as np
import pytest

from layerprobe.engines.graph.engine import GraphEngine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    import keras

    path = tmp_path_factory.mktemp("check") / "dense.keras"
    layers = [keras.Input((4,)), keras.layers.Dense(3, name="d"), keras.layers.ReLU(name="r")]
    keras.Sequential(layers).save(path)
    return path


def test_engines_that_agree_are_said_to(dense, command):
    ended = command("check", "--engines", dense)
    assert ended.code == 0
    assert [line.split()[0] for line in ended.out.splitlines()] == ["d", "r", "verdict"]
    assert "graph, converted agree with keras (4 rows, limit 1e-05)" in ended.out


def test_an_engine_that_is_wrong_is_named_with_its_layer(dense, command, tmp_path, monkeypatch):
    run = GraphEngine.run

    def wrong(self, inputs):
        found = run(self, inputs)
        return found | {"r": found["r"] + np.float32(0.5)}

    monkeypatch.setattr(GraphEngine, "run", wrong)
    np.save(tmp_path / "x.npy", np.ones((5, 4), "float32"))
    ended = command("check", "--engines", dense, tmp_path / "x.npy", "--json")
    report = json.loads(ended.out)
    assert (ended.code, report["agreed"], report["rows"]) == (4, False, 5)
    assert report["differences"]["graph"]["d"] < 1e-5 < 0.1 < (report["differences"]["graph"]["r"] or 1)
    assert max(report["differences"]["converted"].values()) < 1e-5


def test_an_engine_that_cannot_run_the_model_says_why(command, tmp_path):
    import keras

    model = keras.Sequential([keras.Input((3,), dtype="int32"), keras.layers.Embedding(5, 2, name="e")])
    model.save(tmp_path / "m.keras")
    ended = command("check", "--engines", tmp_path / "m.keras")
    assert ended.code == 0
    assert "the converted engine cannot run this model" in ended.out
    assert "graph agree with keras" in ended.out


def test_images_without_engines_are_a_mistake(dense, command):
    ended = command("check", dense, "x.png")
    assert (ended.code, ended.out) == (2, "")
