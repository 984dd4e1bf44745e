"""137 model files of strangers, of ten years of Keras; skipped where they are not at hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from corpus_files import (
    CORPUS,
    INCOMPLETE,
    NO_MODEL,
    OTHER_LAMBDAS,
    SERVED,
    STEP,
    inputs_for,
    is_custom,
    is_here,
    manifest,
    models,
    path_of,
    some_models,
    values,
)

from layerprobe.engines.keras_model import output_shapes
from layerprobe.engines.tracing import model_inputs
from layerprobe.errors import LayerprobeError
from layerprobe.layer_listing import layers
from layerprobe.loading.build import load_model
from layerprobe.loading.served import ServedModel
from layerprobe.modelfile.listing import describe
from layerprobe.records import ModelInfo
from layerprobe.taps import find_layers

pytestmark = [pytest.mark.slow, is_here]


def first_middle_last(info: ModelInfo) -> list[str]:
    usable = [
        layer.address for layer in info.layers if layer.problem is None and layer.class_name != "InputLayer"
    ]
    return list(dict.fromkeys([usable[0], usable[len(usable) // 2], usable[-1]])) if usable else []


def test_every_file_is_listed_or_refused_with_a_sentence() -> None:
    refused = {}
    for row in manifest():
        try:
            assert describe(path_of(row)).layers
        except LayerprobeError as error:
            refused[row["file"]] = str(error)
    assert not any("\n" in sentence for sentence in refused.values())
    no_models = {row["file"] for row in manifest() if any(word in row["format"] for word in NO_MODEL)}
    # Of the two incomplete SavedModels, one can be listed: its graph is there, its variables are not.
    assert refused.keys() == no_models | {INCOMPLETE[1]}


def test_every_model_without_unknown_code_gives_its_first_middle_and_last_layer() -> None:
    failed: dict[str, str] = {}
    count = 0
    for row in some_models(0):
        if is_custom(row):
            continue
        count += 1
        lambdas = OTHER_LAMBDAS.get(row["file"])
        try:
            info = describe(path_of(row), lambdas=lambdas)
            wanted = first_middle_last(info)
            assert not any(layer.problem and layer.class_name == "Lambda" for layer in info.layers)
            model = load_model(path_of(row), lambdas=lambdas, keep=set(wanted) | {""})
            found = values(model, wanted, inputs_for(info, row))
            assert {name.rpartition(":")[0] for name in found} == set(wanted)
            assert all(np.isfinite(value).all() for value in found.values())
        except (LayerprobeError, AssertionError) as error:
            failed[row["file"]] = str(error)[:300]
        keras.utils.clear_session()
    assert failed == {}
    assert count >= 90 // STEP


def test_layers_before_an_unknown_one_are_extracted() -> None:
    for row in models():
        if not is_custom(row) and row["file"] not in OTHER_LAMBDAS:
            continue
        info = describe(path_of(row))
        assert any(layer.problem for layer in info.layers)
        wanted = first_middle_last(info)
        begins_with_it = row["file"].startswith(("fastmachinelearning", "glbn333"))
        if begins_with_it and not wanted:
            continue
        found = values(load_model(path_of(row), keep=set(wanted)), wanted, inputs_for(info, row))
        assert {name.rpartition(":")[0] for name in found} == set(wanted), row["file"]


def test_shapes_that_the_file_tells_are_those_of_the_loaded_model() -> None:
    wrong: dict[str, Any] = {}
    incomplete, count = [], 0
    for row in some_models(1):
        lambdas = OTHER_LAMBDAS.get(row["file"])
        found = {layer.address: layer for layer in layers(path_of(row), lambdas=lambdas) if not layer.problem}
        known = {address: layer.shapes for address, layer in found.items() if layer.shapes is not None}
        if row["file"] == SERVED or not known or is_custom(row):
            continue
        count += 1
        incomplete += [row["file"]] if len(known) < len(found) else []
        model = load_model(path_of(row), lambdas=lambdas, keep=set(known))
        expected = output_shapes(model, list(known), model_inputs(model))
        wrong.update({f"{row['file']} {a}": known[a] for a in known if known[a] != expected.get(a)})
        keras.utils.clear_session()
    assert wrong == {}
    assert len(incomplete) <= 0.05 * count
    assert count >= 90 // STEP


@pytest.mark.parametrize(
    ("architecture", "weights"),
    [
        ("feiyangsb+uuvsim_autoencoder__2ae7de27__svdd_architecture_obstacle.json", "1e586942__svdd_weights"),
        ("feiyangsb+uuvsim_autoencoder__2ae7de27__svdd_architecture_obstacle.json", "f4fc4d01__svdd_weights"),
        ("mulicvedad+emotion-recognition-cnn__9da8d260__model_cnn.json", "ff3f8901__model_cnn"),
    ],
)
def test_an_architecture_takes_the_weights_beside_it(architecture: str, weights: str) -> None:
    (stored,) = (CORPUS / "files").glob(f"*{weights}*.h5")
    model = load_model(str(CORPUS / "files" / architecture), weights=str(stored))
    with h5py.File(stored) as file:
        numbers = [file[group][name][()] for group in file for name in file[group].attrs["weight_names"]]
    assert sorted(array.sum() for array in numbers) == sorted(array.sum() for array in model.get_weights())


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What tf_keras computes for files without code that it can load."""
    folder = tmp_path_factory.mktemp("reference")
    paths = {}
    for row in some_models(2):
        if row["lam"] == "no" and not is_custom(row):
            info = describe(path_of(row))
            arrays = {f"x{number}": array for number, array in enumerate(inputs_for(info, row))}
            np.savez(folder / f"{row['file']}.in.npz", **arrays)
            paths[row["file"]] = path_of(row)
    (folder / "models.json").write_text(json.dumps(paths))
    script = str(Path(__file__).with_name("corpus_reference.py"))
    subprocess.run([sys.executable, script, str(folder)], check=True, capture_output=True)
    return folder


def test_values_of_every_layer_are_those_of_tf_keras(reference: Path) -> None:
    """Relative error below 1e-5, or ten times what a millionth more of input changes in tf_keras."""
    compared: list[str] = []
    wrong: dict[str, Any] = {}
    for path in sorted(reference.glob("*.out.npz")):
        name = path.name.removesuffix(".out.npz")
        saved = np.load(path)
        expected = {key.removeprefix("value ").replace("|", "/"): key for key in saved.files if key[0] == "v"}
        inputs = np.load(reference / f"{name}.in.npz")
        addresses = list(dict.fromkeys(key.rpartition(":")[0] for key in expected))
        model = load_model(str(CORPUS / "files" / name), keep=set(addresses) | {""})
        live = find_layers(model)
        if not isinstance(model, ServedModel):
            assert [address for address in live if "/" not in address and address in addresses] == addresses
        found = values(model, addresses, [inputs[key] for key in inputs.files])
        for key, stored in expected.items():
            right, moved = saved[stored], saved[stored.replace("value ", "moved ")]
            size = max(np.abs(right).max(), 1e-30)
            allowed = max(1e-5, 10 * np.abs(moved - right).max() / size)
            got = found[key]
            if got.shape != right.shape or not np.abs(got - right).max() / size <= allowed:
                wrong[f"{name} {key}"] = (got.shape, right.shape)
        compared.append(name)
        keras.utils.clear_session()
    assert wrong == {}
    loads = {row["file"] for row in some_models(2) if row["tf_keras"] == "yes"}
    assert loads - set(compared) == set()
    assert len(compared) >= 60 // STEP
