"""`--preprocess auto` asks what a model remembers where nothing else tells; only a clear answer counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from remembering_models import Remembering, trained_on, write_pictures

import layerprobe
from layerprobe.diagnosis import evidence
from layerprobe.images.presets import ASSUMED

FOUND = "what arrives at `bn` fits what it has seen in training"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_pictures(tmp_path_factory.mktemp("pictures"), 70)


@pytest.fixture
def model(tmp_path: Path) -> str:
    return Remembering.of(trained_on("bgr:tf")).write(tmp_path / "model.h5")


def extract(
    model: str, inputs: Any, output: Path, **options: Any
) -> tuple[dict[str, Any], Any, tuple[str, ...]]:
    """The preprocessing in the provenance, the values, and what was said."""
    report = layerprobe.extract(model, inputs, ["bn"], str(output), **options)
    with layerprobe.open(str(output)) as found:
        return found.provenance["preprocessing"], np.array(found["bn"]), report.notes


def test_what_a_model_remembers_decides_and_is_said_everywhere(
    model: str, pictures: str, tmp_path: Path
) -> None:
    how, values, notes = extract(model, [pictures], tmp_path / "auto.h5")
    assert (how["preset"], how["channel_order"]) == ("bgr:tf", "bgr")
    assert how["reason"].startswith(FOUND)
    assert how["reason"].endswith("(64 of 70 images looked at)")
    assert f"preprocess bgr:tf: {how['reason']}" in notes
    planned = layerprobe.dry_run(model, [pictures], ["bn"], str(tmp_path / "dry.h5")).preprocessing
    assert planned is not None
    assert (planned.preset, planned.reason) == (how["preset"], how["reason"])
    _, asked, said = extract(model, [pictures], tmp_path / "asked.h5", preprocess="bgr:tf")
    assert np.array_equal(values, asked)
    assert not any("preprocess" in note for note in said)


def test_shards_decide_by_the_whole_list_and_make_the_whole(
    model: str, pictures: str, tmp_path: Path
) -> None:
    _, whole, _ = extract(model, [pictures], tmp_path / "whole.h5")
    parts = [tmp_path / f"{number}.h5" for number in (1, 2, 3)]
    reasons = {
        extract(model, [pictures], part, shard=f"{number}/3")[0]["reason"]
        for number, part in enumerate(parts, 1)
    }
    assert len(reasons) == 1
    layerprobe.merge(str(tmp_path / "all.h5"), [str(part) for part in parts])
    with layerprobe.open(str(tmp_path / "all.h5")) as found:
        assert np.array_equal(found["bn"], whole)


def test_a_finished_run_is_recognised_and_its_failed_rows_keep_what_was_found(
    model: str, tmp_path: Path
) -> None:
    folder, output = write_pictures(tmp_path / "pictures", 20), tmp_path / "out.h5"
    Path(folder, "10004.png").write_bytes(b"")
    how, _, _ = extract(model, [folder], output)
    again = layerprobe.extract(model, [folder], ["bn"], str(output), resume=True)
    assert again.notes == ("it was finished already: there was nothing to do",)
    write_pictures(tmp_path / "pictures", 20)
    from layerprobe.retrying import retry_failed

    assert retry_failed(output).failed == 0
    with layerprobe.open(str(output)) as found:
        assert found.provenance["preprocessing"] == how


def test_few_pictures_and_unclear_answers_leave_it_assumed(model: str, pictures: str, tmp_path: Path) -> None:
    how, _, notes = extract(model, [pictures], tmp_path / "few.h5", limit=7)
    assert (how["preset"], how["reason"]) == ("raw", ASSUMED)
    assert f"preprocess raw: {ASSUMED}" in notes
    other = Remembering.of(trained_on("tf"))
    other.mean += 2 * np.sqrt(other.variance)
    how, _, _ = extract(other.write(tmp_path / "other.h5"), [pictures], tmp_path / "unclear.h5")
    assert how["preset"] == "raw"
    assert how["reason"].startswith(ASSUMED + "; what arrives at `bn` is not what it has seen in training")


def test_what_was_asked_for_or_the_model_says_is_not_looked_for(
    pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "compare_presets", None)  # It cannot be called.
    rescaling = Remembering.of(trained_on("raw"), scale=1 / 255).write(tmp_path / "rescaling.h5")
    how, _, _ = extract(rescaling, [pictures], tmp_path / "a.h5")
    assert how["reason"] == "the model has a Rescaling layer `rescaling`"
    plain = Remembering.of(trained_on("tf")).write(tmp_path / "plain.h5")
    how, _, _ = extract(plain, [pictures], tmp_path / "b.h5", preprocess="raw")
    assert (how["preset"], how["reason"]) == ("raw", "asked for")
    how, _, _ = extract(plain, [f"{pictures}/10001.png"], tmp_path / "c.h5")
    assert how["reason"] == ASSUMED
    without = Remembering.of(trained_on("tf")).write(tmp_path / "without.h5", "without")
    report = layerprobe.extract(without, [pictures], ["conv"], str(tmp_path / "d.h5"))
    assert f"preprocess raw: {ASSUMED}" in report.notes


def test_a_layer_without_training_leaves_it_assumed_and_says_why(pictures: str, tmp_path: Path) -> None:
    fresh = Remembering.of(trained_on("tf"))
    fresh.mean[:], fresh.variance[:] = 0, 1
    how, _, _ = extract(fresh.write(tmp_path / "fresh.h5"), [pictures], tmp_path / "out.h5")
    assert how["reason"].startswith(ASSUMED + "; `bn` was never trained")


def test_a_reason_alone_is_no_way_around_the_checks() -> None:
    with pytest.raises(layerprobe.LayerprobeError, match="preprocess_reason"):
        layerprobe.extract("model.h5", ["x.png"], ["bn"], preprocess_reason=3)


@pytest.mark.slow
def test_worker_processes_are_told_what_was_found(model: str, pictures: str, tmp_path: Path) -> None:
    how, alone, _ = extract(model, [pictures], tmp_path / "one.h5")
    together, values, _ = extract(model, [pictures], tmp_path / "two.h5", processes=2)
    assert together == how
    assert np.array_equal(values, alone)
