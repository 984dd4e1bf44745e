"""What a report says, against NumPy: numbers, the strongest images of every channel, maps, pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_samples import (
    FIRST,
    GOOD,
    LAYERS,
    make_report,
    page_data,
    page_maps,
    write_images,
    write_output,
)

import layerprobe
from layerprobe import registry, statistics
from layerprobe.errors import NoInputError, UsageError
from layerprobe.reporting import survey
from layerprobe.reporting.template import as_script_data, fill_page


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An output and the report about it."""
    return make_report(tmp_path_factory.mktemp("report"))


def strength(name: str) -> Any:
    """(good rows, C): the largest finite value of each channel, by hand."""
    values = LAYERS[name][GOOD].astype(np.float64)
    if name in FIRST:
        values = np.moveaxis(values, 1, -1)
    values = values.reshape(len(GOOD), -1, values.shape[-1] if values.ndim > 1 else 1)
    return np.where(np.isfinite(values), values, -np.inf).max(1)


def layer(data: dict[str, Any], name: str) -> dict[str, Any]:
    return next(found for found in data["layers"] if found["name"] == name)


def test_the_numbers_of_layers_and_channels_are_numpys(written: tuple[Path, Path]) -> None:
    data = page_data(written[1])
    assert [found["name"] for found in data["layers"]] == list(LAYERS)
    for name, values in LAYERS.items():
        found, each = layer(data, name), layer(data, name)["each"]
        rows = values[GOOD].astype(np.float64)
        rows = np.moveaxis(rows, 1, -1) if name in FIRST else rows
        flat = rows.reshape(-1, rows.shape[-1] if rows.ndim > 1 else 1)
        kept = np.ma.masked_invalid(flat)
        assert each["number"] == list(range(flat.shape[1]))
        for key, wanted in (
            ("mean", kept.mean(0)), ("std", kept.std(0)), ("min", kept.min(0)), ("max", kept.max(0)),
            ("zeros", (kept == 0).mean(0)),
        ):  # fmt: skip
            np.testing.assert_allclose(each[key], wanted, rtol=1e-4, atol=1e-7, err_msg=f"{name} {key}")
            if key not in ("mean", "std", "zeros"):
                continue
            whole = {"mean": kept.mean(), "std": kept.std(), "zeros": (kept == 0).mean()}[key]
            assert found[key] == pytest.approx(whole, rel=1e-4, abs=1e-7), (name, key)
        assert (found["min"], found["max"]) == pytest.approx((kept.min(), kept.max()), rel=1e-4)
        assert (found["nan"], found["infinite"]) == (np.isnan(flat).sum(), np.isinf(flat).sum())
        counted = sum(found["histogram"]["counts"]) + found["histogram"]["without_zeros"] * (flat == 0).sum()
        assert counted == pytest.approx(np.isfinite(flat).sum(), rel=1e-3)
    assert (layer(data, "relu")["dead"], layer(data, "relu")["each"]["dead"]) == (1, [2])


def test_the_statistics_are_those_of_the_command_stats(written: tuple[Path, Path]) -> None:
    data = page_data(written[1])
    for name, found in statistics.output_statistics([written[0]]).items():
        each = layer(data, name)["each"]
        np.testing.assert_allclose(each["mean"], found.mean, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(each["std"], found.variance**0.5, rtol=1e-4)


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_the_strongest_images_of_a_channel_are_numpys_in_blocks_of_any_size(
    written: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(survey, "CHUNK_VALUES", chunk)
    layerprobe.report(written[0], tmp_path / "x.html", top=4)
    data = page_data(tmp_path / "x.html")
    for name in LAYERS:
        found, values = layer(data, name)["each"], strength(name)
        for channel in range(values.shape[1]):
            if name == "relu" and channel == 2:
                assert found["rows"][channel] == found["values"][channel] == []
                continue
            order = np.lexsort((GOOD, -values[:, channel]))[:4]
            assert found["rows"][channel] == [GOOD[place] for place in order], (name, channel)
            np.testing.assert_allclose(found["values"][channel], values[order, channel], rtol=1e-4)


def test_the_strongest_channels_and_classes_of_an_image_are_numpys(written: tuple[Path, Path]) -> None:
    data = page_data(written[1])
    assert data["classes"] == {"layer": len(LAYERS) - 1, "names": ["0", "1", "2", "3"]}
    for place, row in enumerate(GOOD):
        image = data["images"][row]
        assert image["row"] == row
        for number, name in enumerate(LAYERS):
            values = strength(name)[place]
            order = np.argsort(-values, kind="stable")[:5]
            assert image["strong"][number][::2] == order.tolist(), (row, name)
            np.testing.assert_allclose(image["strong"][number][1::2], values[order], rtol=1e-4)
        classes = LAYERS["predictions"][row]
        assert image["classes"][::2] == np.argsort(-classes).tolist()
        np.testing.assert_allclose(image["classes"][1::2], np.sort(classes)[::-1], rtol=1e-4)


@pytest.mark.parametrize("name", ["relu", "maps", "first", "steps"])
def test_maps_are_the_values_to_half_a_step_of_their_scale(written: tuple[Path, Path], name: str) -> None:
    found = layer(page_data(written[1]), name)
    values = np.moveaxis(LAYERS[name], 1, -1) if name in FIRST else LAYERS[name]
    maps = page_maps(found["maps"])
    for channel, rows in enumerate(found["each"]["rows"]):
        low, high = found["low"][channel], found["high"][channel]
        for rank, row in enumerate(rows):
            wanted = values[row, ..., channel]
            shown = np.where(
                maps[channel, rank] == 255, np.nan, low + maps[channel, rank] * (high - low) / 254
            )
            finite = np.where(np.isfinite(wanted), wanted, np.nan)
            np.testing.assert_allclose(
                shown, np.broadcast_to(finite, shown.shape), atol=0.51 * (high - low) / 254 + 1e-4
            )


@pytest.mark.parametrize("name", ["relu", "maps", "first", "steps"])
def test_each_image_has_the_maps_of_its_own_strongest_channels(written: tuple[Path, Path], name: str) -> None:
    data = page_data(written[1])
    found, number = layer(data, name), list(LAYERS).index(name)
    values = np.moveaxis(LAYERS[name], 1, -1) if name in FIRST else LAYERS[name]
    maps = page_maps(found["maps_of_rows"])
    assert maps.shape[:2] == (len(GOOD), 5)
    for place, row in enumerate(GOOD):
        for rank, channel in enumerate(data["images"][row]["strong"][number][::2]):
            low, high = found["low"][channel], found["high"][channel]
            wanted = values[row, ..., channel]
            known = np.isfinite(wanted)
            shown = low + maps[place, rank].reshape(wanted.shape) * ((high - low) or 1) / 254
            assert (maps[place, rank].reshape(wanted.shape)[~known] == 255).all()
            limit = 0.51 * (high - low) / 254 + 1e-4
            np.testing.assert_allclose(shown[known], wanted[known], atol=limit)


def test_large_maps_are_averaged_down(written: tuple[Path, Path]) -> None:
    found = layer(page_data(written[1]), "large")
    assert (found["maps"]["height"], found["maps"]["width"]) == (32, 24)
    row = found["each"]["rows"][1][0]
    wanted = LAYERS["large"][row, ..., 1].reshape(32, 2, 24, 2).mean((1, 3))
    shown = page_maps(found["maps"])[1, 0] * found["high"][1] / 254
    np.testing.assert_allclose(shown, wanted, atol=0.51 * found["high"][1] / 254 + 1e-4)


def test_layers_without_maps_have_none(written: tuple[Path, Path]) -> None:
    data = page_data(written[1])
    without = {found["name"] for found in data["layers"] if found["maps"] is None}
    assert without == {"vector", "ties", "number", "count", "volume", "predictions"}


@pytest.mark.parametrize("way", [*registry.WRITERS, *registry.STREAMS, "hdf5 gzip"])
def test_every_format_gives_the_same_page(written: tuple[Path, Path], tmp_path: Path, way: str) -> None:
    if way == "parquet":
        pytest.importorskip("pyarrow")
    paths = [image["name"] for image in page_data(written[1])["images"]]
    output = write_output(tmp_path / "out", LAYERS, paths, way=way)
    layerprobe.report(output, tmp_path / "x.html", top=4)
    one, other = page_data(tmp_path / "x.html"), page_data(written[1])
    for data in (one, other):
        del data["title"], data["provenance"]
    assert one == other


def test_of_many_images_and_channels_as_many_are_shown_as_fit(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    layers = {
        "wide": random.normal(size=(900, 5000)).astype("f4"),
        "maps": random.normal(size=(900, 9, 9, 40)),
    }
    output = write_output(
        tmp_path / "a.npy", layers, [f"{row}.jpg" for row in range(900)], {5: "broken"}, None
    )
    made = layerprobe.report(output, tmp_path / "a.html", max_size=900_000)
    data = page_data(tmp_path / "a.html")
    assert made.size <= 900_000
    notes = "\n".join(made.notes)
    assert "of 900 images are listed" in notes
    assert "wide: 4,096 of 5,000 channels are shown" in notes
    assert "images are shown for each channel, for size" in notes
    strongest = np.sort(np.argsort(-np.delete(layers["wide"], 5, 0).max(0), kind="stable")[:4096])
    assert data["layers"][0]["each"]["number"] == strongest.tolist()
    listed = {image["row"] for image in data["images"]}
    assert 100 < len(listed) < 900
    assert 5 in listed, "failed rows are listed"


def test_labels_are_read_as_text_and_as_json_and_must_fit(written: tuple[Path, Path], tmp_path: Path) -> None:
    files = {
        "a.txt": "cat\ndog\ncow\nhen\n",
        "a.json": '["cat", "dog", "cow", "hen"]',
        "index.json": json.dumps(
            {str(i): [f"n{i}", name] for i, name in enumerate(("cat", "dog", "cow", "hen"))}
        ),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        layerprobe.report(written[0], tmp_path / "x.html", labels=tmp_path / name, overwrite=True)
        assert page_data(tmp_path / "x.html")["classes"]["names"] == ["cat", "dog", "cow", "hen"]
    (tmp_path / "b.txt").write_text("cat\n")
    with pytest.raises(UsageError, match="has 1 names, and layer 'predictions' has 4 classes"):
        layerprobe.report(written[0], tmp_path / "y.html", labels=tmp_path / "b.txt")
    with pytest.raises(UsageError, match="need a layer of probabilities"):
        layerprobe.report(written[0], tmp_path / "y.html", labels=tmp_path / "a.txt", layers=["relu"])
    (tmp_path / "c.json").write_text("[1, 2")
    with pytest.raises(UsageError, match="expected a JSON list of names"):
        layerprobe.report(written[0], tmp_path / "y.html", labels=tmp_path / "c.json")
    with pytest.raises(NoInputError, match="no such file|No such file"):
        layerprobe.report(written[0], tmp_path / "y.html", labels=tmp_path / "none.txt")
    assert not (tmp_path / "y.html").exists()


def test_arrays_have_no_pictures_and_fields_are_told(tmp_path: Path) -> None:
    fields = ['{"label": "cat \\u202e", "n": [1]}', ""]
    output = write_output(
        tmp_path / "a.h5", {"x": np.eye(2, dtype="f4")}, ["a.npy[0]", "a.npy[1]"], {}, None, fields
    )
    made = layerprobe.report(output, tmp_path / "a.html")
    assert made.notes == ("The rows come from arrays, not from image files: there are no pictures.",)
    images = page_data(tmp_path / "a.html")["images"]
    assert images[0]["fields"] == [["label", "cat \\u202e"], ["n", "[1]"]]
    assert "fields" not in images[1]


def test_one_hot_vectors_that_a_model_is_given_are_not_its_classes(samples: Path, tmp_path: Path) -> None:
    given = {"query": [str(samples / "two_inputs_query.npy")]}
    layerprobe.extract(samples / "two_inputs.keras", given, ["query"], tmp_path / "a.h5")
    layerprobe.report(tmp_path / "a.h5", tmp_path / "a.html")
    data = page_data(tmp_path / "a.html")
    assert data["classes"] is None
    assert not any("classes" in image for image in data["images"])


def test_only_some_rows_and_layers_are_told_of(written: tuple[Path, Path], tmp_path: Path) -> None:
    made = layerprobe.report(written[0], tmp_path / "a.html", limit=5, layers=["relu", "number"])
    data = page_data(tmp_path / "a.html")
    assert (made.rows, made.failed) == (5, 1)
    assert made.notes == ("Only the first 5 of 20 rows are counted.",)
    assert [found["name"] for found in data["layers"]] == ["relu", "number"]
    assert len(data["images"]) == 5
    assert data["images"][3]["failed"] == "truncated JPEG"
    np.testing.assert_allclose(layer(data, "relu")["mean"], LAYERS["relu"][[0, 1, 2, 4]].mean(), rtol=1e-4)


def test_a_report_of_failed_rows_alone_has_no_numbers(written: tuple[Path, Path], tmp_path: Path) -> None:
    paths = write_images(tmp_path / "images", 2)
    output = write_output(tmp_path / "a.h5", {"x": np.ones((2, 3, 3, 2), "f4")}, paths, {0: "broken"})
    layerprobe.report(output, tmp_path / "a.html", limit=1)
    found = page_data(tmp_path / "a.html")["layers"][0]
    assert (found["mean"], found["dead"], found["each"]["rows"]) == (None, 0, [[], []])


def test_the_command_names_the_page_after_the_output(
    written: tuple[Path, Path], tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = command("report", written[0], "-l", "relu")
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.startswith("layerprobe: 20 rows, 1 layer, 18 pictures, ")
    assert ended.err.endswith(" -> out.html\n")
    assert (tmp_path / "out.html").exists()
    assert command("report", written[0], "-l", "relu", "--overwrite", "-q").err == ""


def test_data_cannot_leave_its_element_and_the_policy_forbids_all_else() -> None:
    evil = "</script><!--<script>&\u2028\u2029\ud800"
    text = as_script_data({"x": evil})
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"x": evil}
    page = fill_page("<b>{{data}}", {"x": "{{script}}"}).decode()
    assert "<title>&lt;b&gt;{{data}}</title>" in page
    assert '{"x":"{{script}}"}' in page
    assert "default-src 'none'" in page
    assert "unsafe" not in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_the_package_has_all_files_of_the_page_and_none_sets_html() -> None:
    folder = Path(layerprobe.__file__).parent / "reporting" / "page"
    from layerprobe.reporting.template import SCRIPTS

    assert {path.name for path in folder.iterdir()} == {*SCRIPTS, "page.html", "page.css"}
    for path in folder.glob("*.js"):
        assert len(path.read_text().splitlines()) <= 350
        for risky in ("innerHTML", "outerHTML", "insertAdjacent", "eval(", "document.write", "Function("):
            assert risky not in path.read_text(), path.name
