"""Damaged and distorted model files at random: a report or one clear error, always, and quickly."""

from __future__ import annotations

import copy
import io
import json
import random
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from savedmodel_samples import keras_metadata, plain, write
from small_models import document, layer, write_hdf5, write_keras

from layerprobe.errors import LayerprobeError
from layerprobe.modelfile.report import check

CODE = json.loads((Path(__file__).parent / "byte_code" / "python3.11.json").read_text())["scale"]


def rich_model() -> dict[str, Any]:
    """A functional model with nesting, wrappers, several calls and a Lambda."""

    def tensor(name: str, node: int = 0) -> dict[str, Any]:
        history = [name, node, 0]
        return {"class_name": "__keras_tensor__", "config": {"shape": [None, 4], "keras_history": history}}

    def called(entry: dict[str, Any], *inputs: str) -> dict[str, Any]:
        arguments: Any = [tensor(name) for name in inputs]
        nodes = (
            [{"args": [arguments if len(arguments) > 1 else arguments[0]], "kwargs": {}}] if inputs else []
        )
        return {**entry, "name": entry["config"]["name"], "inbound_nodes": nodes}

    function = {"class_name": "__lambda__", "config": {"code": CODE, "defaults": None, "closure": None}}
    inner = document(layer("Dense", "deep", units=4, activation="relu"))["config"]
    layers = [
        called(layer("InputLayer", "in", batch_shape=[None, 4], dtype="float32")),
        called(
            layer("Dense", "first", units=4, activation="relu", kernel_initializer={"class_name": "Zeros"}),
            "in",
        ),
        called(layer("Sequential", "inner", "keras") | {"config": {**inner, "name": "inner"}}, "first"),
        called(layer("Lambda", "scale", function=function, arguments={}), "inner"),
        called(layer("Concatenate", "join", axis=-1), "first", "scale"),
        called(layer("Reshape", "steps", target_shape=[2, 4]), "join"),
        called(layer("Bidirectional", "both", layer=layer("LSTM", "lstm", units=3)), "steps"),
    ]
    config = {
        "name": "model",
        "layers": layers,
        "input_layers": [["in", 0, 0]],
        "output_layers": [["both", 0, 0]],
    }
    return {"module": "keras", "class_name": "Functional", "config": config, "registered_name": "Functional"}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value within a JSON document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


PLACES = list(places(rich_model()))
NUMBERS = [10**9, -(10**9), 2**70, 0.5, -1.5, 1e300]
WORDS = ["", "..", "/", "\0", "relu", "__lambda__", "Dense"]
SHAPES = [[], {}, [[]], [None], [["in", 0, 0]], {"class_name": "Dense"}, {"class_name": 3, "config": []}]
ODD = st.one_of(
    *(st.none(), st.booleans(), st.integers(-3, 3), st.text(max_size=5)),
    *(st.sampled_from(NUMBERS), st.sampled_from(WORDS), st.sampled_from(SHAPES)),
)


@st.composite
def distorted_models(draw: st.DrawFn) -> Any:
    """The rich model with a few values replaced, removed or put somewhere else."""
    model = copy.deepcopy(rich_model())
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(PLACES[1:]))
        parent = model
        try:
            for key in path[:-1]:
                parent = parent[key]
            if draw(st.booleans()) or not isinstance(parent, dict):
                parent[path[-1]] = draw(ODD)
            else:
                del parent[path[-1]]
        except (KeyError, IndexError, TypeError):
            continue
    return model


def checked(path: Path) -> str:
    """ "complete", "incomplete" or the error's text; anything else that is raised fails the test."""
    start = time.perf_counter()
    try:
        outcome = "complete" if check(str(path)).complete else "incomplete"
    except LayerprobeError as error:
        outcome = str(error)
    assert time.perf_counter() - start < 30
    return outcome


def test_the_model_that_is_distorted_is_valid_itself(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps(rich_model()))
    report = check(str(tmp_path / "model.json"))
    assert report.info is not None
    assert report.info.layers
    assert not any(layer.problem for layer in report.info.layers)
    assert not any(finding.level == "refused" for finding in report.findings)
    assert not report.complete, "it has no weights"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(distorted_models())
def test_any_distorted_config_gives_a_report_or_one_error(tmp_path: Path, model: Any) -> None:
    (tmp_path / "model.json").write_text(json.dumps(model))
    checked(tmp_path / "model.json")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), st.integers(0, 10**6), st.integers(0, 40))
def test_any_cut_or_overwritten_text_gives_a_report_or_one_error(
    tmp_path: Path, junk: bytes, place: int, length: int
) -> None:
    text = json.dumps(rich_model()).encode()
    place %= len(text)
    (tmp_path / "model.json").write_bytes(text[:place] + junk + text[place + length :])
    checked(tmp_path / "model.json")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6), st.booleans())
def test_any_damaged_zip_directory_gives_a_report_or_one_error(
    tmp_path: Path, changes: list[tuple[int, int]], packed: bool
) -> None:
    """Bytes of the zip's headers and directory; the HDF5 file inside keeps its own."""
    buffer = io.BytesIO()
    write_keras(buffer, rich_model(), compression=zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED)  # type: ignore[arg-type]
    data = bytearray(buffer.getvalue())
    headers = [at for mark in (b"PK\3\4", b"PK\1\2", b"PK\5\6") for at in _find_all(bytes(data), mark)]
    for place, value in changes:
        data[min(headers[place % len(headers)] + place // 7 % 46, len(data) - 1)] = value
    (tmp_path / "model.keras").write_bytes(bytes(data))
    checked(tmp_path / "model.keras")


def _find_all(data: bytes, mark: bytes) -> list[int]:
    found = [data.find(mark)]
    while (after := data.find(mark, found[-1] + 1)) >= 0:
        found.append(after)
    return found


@pytest.mark.parametrize("name", ["saved_model.pb", "keras_metadata.pb", "variables/variables.index"])
def test_any_damaged_savedmodel_gives_a_report_or_one_error(tmp_path: Path, name: str) -> None:
    model = document(layer("Dense", "first", units=3), layer("Flatten", "last"))
    file = write(tmp_path / "model", plain(), keras_metadata(model)) / name
    data = file.read_bytes()
    assert checked(tmp_path / "model") in ("complete", "incomplete")
    for seed in range(150):
        dice = random.Random(seed)
        damaged = bytearray(data)
        for _ in range(dice.choice([1, 1, 2, 8])):
            damaged[dice.randrange(len(data))] = dice.choice([0, 127, 255, dice.randrange(256)])
        if dice.random() < 0.1:
            del damaged[dice.randrange(len(damaged)) :]
        file.write_bytes(bytes(damaged))
        checked(tmp_path / "model")


# HDF5 is a C library: a process of its own shows it if it crashes. The seeds are fixed, so that what passes
# here passes everywhere with this version of it.

DAMAGE = """
import json, random, sys, time
from pathlib import Path
from layerprobe.errors import LayerprobeError
from layerprobe.modelfile.report import check

original, copy = Path(sys.argv[1]), Path(sys.argv[2])
data = original.read_bytes()
for seed in range(int(sys.argv[3])):
    dice = random.Random(seed)
    damaged = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 4, 16])):
        place = dice.randrange(min(len(data), 2400) if dice.random() < 0.5 else len(data))
        damaged[place] = dice.choice([0, 255, dice.randrange(256), damaged[place] ^ (1 << dice.randrange(8))])
    if dice.random() < 0.1:
        del damaged[dice.randrange(len(damaged)) :]
    copy.write_bytes(bytes(damaged))
    print(seed, flush=True)
    try:
        check(str(copy))
    except LayerprobeError:
        continue
"""


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_damaged_hdf5_gives_a_report_or_one_error_and_never_a_crash(tmp_path: Path, suffix: str) -> None:
    original = tmp_path / f"original{suffix}"
    model = document(layer("Dense", "first", units=3), layer("Dense", "last", units=2))
    (write_hdf5 if suffix == ".h5" else write_keras)(original, model)
    ended = subprocess.run(
        [sys.executable, "-c", DAMAGE, str(original), str(tmp_path / f"copy{suffix}"), "140"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, (ended.stdout[-20:], ended.stderr[-1_000:])


@pytest.mark.slow
def test_distorted_configs_are_loaded_or_refused_with_one_error(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    from layerprobe.loading.build import load_model

    loaded = 0
    dice = random.Random(0)
    model = document(layer("Dense", "first", units=3, activation="relu"), layer("Dense", "last", units=2))
    paths = [path for path in places(model) if path and path[0] == "config"]
    odd = [None, True, -1, 0, 3, 10**9, 2**70, 0.5, "", "relu", [], {}, [1, 2], {"class_name": "Dense"}]
    for _ in range(150):
        distorted: Any = copy.deepcopy(model)
        *outer, last = dice.choice(paths)
        parent = distorted
        for key in outer:
            parent = parent[key]
        parent[last] = dice.choice(odd)
        write_hdf5(tmp_path / "model.h5", distorted)
        try:
            load_model(str(tmp_path / "model.h5"))
            loaded += 1
        except LayerprobeError:
            continue
    assert 10 < loaded < 140
