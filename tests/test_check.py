"""`layerprobe check`: what a model is and what of it is refused, from the file alone."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
from hostile_configs import byte_code, payload
from savedmodel_samples import plain
from savedmodel_samples import write as write_savedmodel
from small_models import around, dense, document, layer, write_hdf5, write_keras

PLAIN = document(dense("first", 3), dense("last", 2))
CORPUS = Path(__file__).parents[2] / "shared" / "corpus" / "files"
Command = Callable[..., Any]


@pytest.fixture
def lambda_model(tmp_path: Path) -> Path:
    """A model with a Lambda in its middle that must not be run."""
    path = tmp_path / "lambda.keras"
    write_keras(path, around(layer("Lambda", "middle", function=byte_code(payload(tmp_path / "marker")))))
    return path


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_harmless_model_is_described_and_ends_with_0(command: Command, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    (write_hdf5 if suffix == ".h5" else write_keras)(path, PLAIN)
    ended = command("check", path)
    assert ended.code == 0
    assert ended.err == ""
    lines = dict(line.split(None, 1) for line in ended.out.splitlines())
    assert lines["file"] == str(path)
    assert lines["format"] == ("hdf5" if suffix == ".h5" else "keras") + ", Keras 3.8.0"
    assert lines["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert lines["model"] == "Sequential, 2 layers"
    assert lines["input"] == "start (4,) float32"
    assert lines["extractable"] == "2 of 2 layers"
    assert lines["safety"] == "no known unsafe construct found"


def test_an_architecture_without_weights_gives_no_layer_and_is_no_success(
    command: Command, tmp_path: Path
) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(PLAIN))
    lack = f"{path} has no weights: give the file that holds them with --weights"
    ended = command("check", path)
    assert ended.code == 65
    assert "0 of 2 layers" in ended.out
    assert f"{lack}\n" in ended.out
    assert not json.loads(command("check", path, "--json").out)["complete"]

    listed = command("layers", path)
    assert (listed.out.splitlines()[-1], listed.err) == ("2 layers", "")

    for engine in ("auto", "graph"):
        words = ["-l", "last", "--engine", engine, "x.npy", "-o", tmp_path / "x.npz"]
        ended = command("extract", path, *words)
        assert (ended.code, ended.out, ended.err) == (65, "", f"layerprobe: {lack}.\n")

    write_hdf5(tmp_path / "w.h5", PLAIN)
    assert command("check", path, "--weights", tmp_path / "w.h5").code == 0


def test_a_savedmodel_whose_variables_are_missing_gives_no_layer(command: Command, tmp_path: Path) -> None:
    model = write_savedmodel(tmp_path / "model", plain())
    assert command("check", model).code == 0
    data = model / "variables" / "variables.data-00000-of-00001"
    data.unlink()
    lack = f"{data} is missing: the SavedModel is incomplete"
    ended = command("check", model)
    assert ended.code == 65
    assert re.search(r"extractable +0 of \d+ layers", ended.out)
    assert f"{lack}\n" in ended.out
    ended = command("extract", model, "-l", "output", "x.npy", "-o", tmp_path / "x.npz")
    assert (ended.code, ended.out, ended.err) == (65, "", f"layerprobe: {lack}.\n")


def test_a_lambda_is_shown_as_decoded_and_says_what_to_give(command: Command, lambda_model: Path) -> None:
    ended = command("check", lambda_model)
    assert ended.code == 65
    assert "__import__('pathlib')" in ended.out
    assert "--lambda middle='...'" in ended.out
    assert "1 of 3 layers" in ended.out
    assert not (lambda_model.parent / "marker").exists()
    given = command("check", lambda_model, "--lambda", "middle=x * 2")
    assert given.code == 0
    assert "x * 2" in given.out


def test_json_holds_everything(command: Command, lambda_model: Path) -> None:
    ended = command("check", lambda_model, "--json")
    assert ended.code == 65
    report = json.loads(ended.out)
    assert report["file_format"] == "keras"
    assert report["complete"] is False
    assert report["inputs"][0]["shape"] == [4]
    assert [entry["address"] for entry in report["layers"]] == ["first", "middle", "last"]
    assert [entry["problem"] is None for entry in report["layers"]] == [True, False, False]


def test_a_refused_file_is_reported_with_its_place(command: Command, tmp_path: Path) -> None:
    def change(file: h5py.File, name: str) -> None:
        del file[name]
        file[name] = h5py.ExternalLink("/etc/passwd", "x")

    write_hdf5(tmp_path / "model.h5", PLAIN, change)
    ended = command("check", tmp_path / "model.h5")
    assert ended.code == 65
    assert "refused" in ended.out
    assert "/model_weights/first/first/kernel" in ended.out
    assert "no known unsafe construct" not in ended.out
    report = json.loads(command("check", tmp_path / "model.h5", "--json").out)
    assert report["layers"] == []
    assert report["findings"][0]["level"] == "refused"


def test_each_migration_is_one_line(command: Command, tmp_path: Path) -> None:
    old = {"class_name": "Sequential", "config": [layer("Dense", "a", None, output_dim=3, input_dim=4)]}
    (tmp_path / "model.json").write_text(json.dumps({**old, "keras_version": "1.2.2"}))
    ended = command("check", tmp_path / "model.json")
    notes = [line for line in ended.out.splitlines() if line.startswith("note")]
    assert any("Keras 1 argument names" in line for line in notes)
    assert len(notes) == len(set(notes))


def test_control_characters_are_shown_escaped(command: Command, tmp_path: Path) -> None:
    evil = layer("Odd\x1b[2J", "na\nme\x07", "odd")
    write_keras(tmp_path / "model.keras", document(dense("first", 3), evil))
    ended = command("check", tmp_path / "model.keras")
    assert ended.code == 65
    assert not set(ended.out) & {"\x1b", "\x07"}
    assert "na\\nme\\x07" in ended.out


@pytest.mark.parametrize(
    ("content", "code"), [(None, 66), (b"", 65), (b"<html>", 65), (b"PK\3\4", 65), (b"{}", 65)]
)
def test_what_is_no_model_is_one_line_and_a_code(
    command: Command, tmp_path: Path, content: bytes | None, code: int
) -> None:
    if content is not None:
        (tmp_path / "model").write_bytes(content)
    ended = command("check", tmp_path / "model")
    assert ended.code == code
    assert ended.out == ""
    assert ended.err.startswith("layerprobe: ")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("given", ["x * 2", "=x", "middle=", "middle=os.system('x')", "other=x"])
def test_an_expression_that_cannot_be_meant_is_a_usage_error(
    command: Command, lambda_model: Path, given: str
) -> None:
    assert command("check", lambda_model, "--lambda", given).code == 2


def test_checking_imports_neither_tensorflow_nor_keras(lambda_model: Path) -> None:
    script = (
        "import sys\n"
        "from layerprobe import cli\n"
        f"sys.argv = ['layerprobe', 'check', {str(lambda_model)!r}]\n"
        "code = cli.run()\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
        "sys.exit(code)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
    assert ended.returncode == 65, ended.stderr


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the collection of published models is not here")
def test_all_published_models_are_checked_quickly_and_without_a_traceback(command: Command) -> None:
    start = time.process_time()
    codes = [command("check", path).code for path in sorted(CORPUS.iterdir())]
    assert set(codes) == {0, 65}
    assert codes.count(0) > 80
    assert time.process_time() - start < 120


def test_a_subclassed_model_is_said_to_need_its_code(command: Command, samples: Path) -> None:
    ended = command("check", samples / "subclassed_shapes.keras")
    assert ended.code == 65
    assert "ShapeClassifier, whose layers the file does not list" in ended.out
    assert "give it with --custom FILE.py" in ended.out
    assert "0 of 0" not in ended.out
