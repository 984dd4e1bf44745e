"""Linear CKA between outputs, against its definition worked out over all images at once."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from output_samples import PROVENANCE
from PIL import Image

from layerprobe import registry, similarity
from layerprobe.errors import NoInputError, UnknownLayerError, UsageError
from layerprobe.records import TensorSpec
from layerprobe.similarity import compare
from layerprobe.views.colours import amounts

RANDOM = np.random.default_rng(11)


def cka(x: Any, y: Any) -> float:
    """Kornblith's equation (6), features against features."""
    x, y = (np.asarray(z, np.float64).reshape(len(z), -1) for z in (x, y))
    x, y = x - x.mean(0), y - y.mean(0)
    norm = np.linalg.norm
    return float(norm(y.T @ x) ** 2 / (norm(x.T @ x) * norm(y.T @ y)))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write_output(
        name: str, values: dict[str, Any], paths: list[str] | None = None, failed: Any = ()
    ) -> Path:
        path = tmp_path / name
        rows = len(next(iter(values.values())))
        specs = [TensorSpec(key, array.shape[1:], str(array.dtype)) for key, array in values.items()]
        names = paths or [f"{row}.jpg" for row in range(rows)]
        writer = registry.find(registry.WRITERS, registry.SUFFIXES[path.suffix], "format")(
            str(path), specs, names
        )
        writer.write(0, values)
        layers = [{"name": spec.name, "shape": list(spec.shape)} for spec in specs]
        writer.commit(dict.fromkeys(failed, "broken"), dataclasses.replace(PROVENANCE, layers=layers))
        return path

    return write_output


def some_layers(rows: int) -> dict[str, Any]:
    base = RANDOM.normal(size=(rows, 20)).astype("float32")
    return {
        "maps": (RANDOM.normal(size=(rows, 5, 4, 3)) + base[:, :3].reshape(rows, 1, 1, 3)).astype("float32"),
        "vector": base,
        "turned": base @ np.linalg.qr(RANDOM.normal(size=(20, 20)))[0].astype("float32") * 3 + 7,
        "half": base[:, :10].astype("float16"),
        "number": base[:, 0].copy(),
    }


@pytest.mark.parametrize("block_bytes", [1, 3000, 1 << 30])
def test_every_value_is_that_of_the_definition(
    write: Any, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(similarity, "BLOCK_BYTES", block_bytes)
    one, other = some_layers(50), some_layers(50)
    found = compare(write("a.h5", one), write("b.npz", other))
    assert found.one == found.other == tuple(one)
    assert found.rows == 50
    wanted = [[cka(x, y) for y in other.values()] for x in one.values()]
    np.testing.assert_allclose(found.values, wanted, rtol=1e-4, atol=1e-7)


def test_an_output_is_like_itself_and_like_its_own_rotation(write: Any) -> None:
    path = write("a.npz", some_layers(40))
    values = compare(path, path).values
    np.testing.assert_allclose(np.diag(values), 1, atol=1e-12)
    assert values.max() <= 1
    assert values[1, 2] == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(values, values.T, rtol=1e-6)


def test_images_are_matched_by_name_and_failed_ones_left_out(write: Any) -> None:
    layers = some_layers(12)
    order = RANDOM.permutation(12)
    other = {"y": layers["maps"][order] ** 2}
    paths = [f"{row}.jpg" for row in order]
    one = write("a.npz", {"x": layers["maps"]}, failed=(3,))
    found = compare(one, write("b.npz", other, paths, failed=(paths.index("7.jpg"),)))
    kept = [row for row in range(12) if row not in (3, 7)]
    assert found.rows == 10
    assert found.values[0, 0] == pytest.approx(cka(layers["maps"][kept], layers["maps"][kept] ** 2), rel=1e-5)


def test_two_names_of_one_file_are_one_image(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    layers = {"x": some_layers(3)["maps"]}
    one = write("a.npz", layers, ["photos/0.jpg", "photos/1.jpg", "s3://bucket/2.jpg"])
    other = write("b.npz", layers, [str(tmp_path / "photos/0.jpg"), "./photos/1.jpg", "s3://bucket/2.jpg"])
    assert compare(one, other).values == pytest.approx(1)


def test_a_layer_that_is_the_same_for_every_image_has_no_value(write: Any) -> None:
    path = write("a.npz", {"x": np.ones((4, 3), "float32"), "y": RANDOM.normal(size=(4, 3)).astype("f4")})
    values = compare(path, path).values
    assert np.isnan(values).tolist() == [[True, True], [True, False]]


def test_layers_that_hold_what_is_no_number_are_named(write: Any, command: Any) -> None:
    layers = some_layers(4)
    layers["half"][2, 3] = np.inf
    layers["number"][1] = np.nan
    layers["empty"] = np.zeros((4, 0), np.float32)
    path = write("a.h5", layers)
    found = compare(path, path)
    assert found.not_finite == ("half", "number")
    names = list(layers)
    unknown = [names.index(name) for name in ("half", "number", "empty")]
    assert np.isnan(found.values[unknown]).all()
    assert np.isfinite(np.delete(np.delete(found.values, unknown, 0), unknown, 1)).all()
    told = command("compare", path, path).err
    assert "layerprobe: half holds values that are NaN or infinite" in told
    assert "empty" not in told


def test_names_of_layers_are_text_and_no_markup(write: Any, command: Any) -> None:
    names = ["in:cat:0", "conv[red]", "a[/b]"]
    path = write("a.npz", {name: RANDOM.normal(size=(4, 3)).astype("f4") for name in names})
    for arguments in (["compare", path, path], ["stats", path], ["stats", path, "--channels"]):
        ended = command(*arguments)
        assert ended.code == 0, ended.err
        assert all(name in ended.out for name in names)


def test_what_cannot_be_compared_is_said(write: Any) -> None:
    one = write("a.npz", {"x": np.zeros((3, 2), "float32")})
    other = write("b.npz", {"x": np.zeros((3, 2), "float32")}, ["0.jpg", "1.jpg", "x.jpg"])
    with pytest.raises(UsageError, match="'2.jpg' is in one of them only"):
        compare(one, other)
    twice = write("c.npz", {"x": np.zeros((3, 2), "float32")}, ["0.jpg", "0.jpg", "x.jpg"])
    with pytest.raises(UsageError, match="several rows of one name"):
        compare(twice, twice)
    with pytest.raises(UnknownLayerError, match="no layer 'z'"):
        compare(one, one, ["z"])
    broken = write("d.npz", {"x": np.zeros((3, 2), "float32")}, failed=(0, 2))
    with pytest.raises(NoInputError, match="fewer than two images"):
        compare(broken, one)
    waves = write("e.npz", {"x": np.zeros((3, 2), "complex64")})
    with pytest.raises(UsageError, match="holds no layer of real numbers"):
        compare(waves, waves)


def test_the_command_gives_a_table_json_and_a_picture(write: Any, command: Any, tmp_path: Path) -> None:
    layers = some_layers(30)
    path = write("a.h5", layers)
    picture = tmp_path / "m.png"
    ended = command("compare", path, path, "-l", "maps", "-l", "vector", "-o", picture)
    wanted = cka(layers["maps"], layers["vector"])
    assert ended.code == 0
    lines = [line.split() for line in ended.out.splitlines()]
    assert lines[0] == ["maps", "vector"]
    assert lines[2][0] == "maps"
    assert [float(text) for text in lines[2][1:]] == pytest.approx([1, wanted], abs=6e-4)
    colours = set(map(tuple, np.asarray(Image.open(picture)).reshape(-1, 3).tolist()))
    assert {tuple(amounts(value).tolist()) for value in (1.0, wanted)} <= colours
    told = json.loads(command("compare", path, path, "--json").out)
    assert told["one"] == list(layers)
    assert told["cka"][0][1] == pytest.approx(wanted, rel=1e-4)
    again = command("compare", path, path, "-o", picture)
    assert (again.code, "--overwrite" in again.err) == (73, True)


def test_a_layer_that_is_named_may_be_in_one_output_only(write: Any) -> None:
    layers = some_layers(9)
    one = write("a.npz", {"x": layers["maps"], "y": layers["vector"]})
    other = write("b.npz", {"y": layers["vector"], "z": layers["maps"]})
    found = compare(one, other, ["x", "z"])
    assert (found.one, found.other) == (("x",), ("z",))
    assert found.values == pytest.approx(1)
    assert compare(one, other, ["y"]).values == pytest.approx(1)
    with pytest.raises(UsageError, match=r"b.npz' holds none of the layers that are named.*'y', 'z'"):
        compare(one, other, ["x"])
    with pytest.raises(UnknownLayerError, match="no layer 'w'"):
        compare(one, other, ["x", "z", "w"])


def test_a_narrow_terminal_is_told_which_layers_are_most_alike(
    write: Any, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, noise = RANDOM.normal(size=(2, 20, 3)).astype("f4")
    layers = {"first": base, "second": base + 0.2 * noise, "third": noise, "constant": noise * 0}
    path = write("a.h5", layers)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", command("compare", path, path, "-q").out)
    likest = {words[0]: words[1] for words in map(str.split, plain.splitlines()) if words[0] in layers}
    assert likest == {"first": "second", "second": "first", "third": "second", "constant": "-"}
