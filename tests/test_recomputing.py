"""`verify --recompute`: rows come out of the model as they are stored, and what does not is named."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from made_up_model import (
    BROKEN,
    FORMATS,
    ROWS,
    MadeUpEngine,
    MadeUpModel,
    extract,
    use_made_up_model,
    write_inputs,
)
from PIL import Image

import layerprobe
from layerprobe.cli import cli
from layerprobe.errors import NoInputError, ResumeError, UsageError
from layerprobe.merging.merge import merge
from layerprobe.verification import recomputing, verify

SAMPLES = Path(__file__).parent.parent / "sample_models"


@pytest.fixture(autouse=True)
def made_up_model(monkeypatch: pytest.MonkeyPatch) -> None:
    use_made_up_model(monkeypatch)


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    names = write_inputs(tmp_path / "images")
    for name in names:
        os.utime(name, (1, 1))
    return names


@pytest.fixture
def output(tmp_path: Path, inputs: list[str]) -> Path:
    extract(inputs, tmp_path / "out.h5")
    return tmp_path / "out.h5"


def edit(output: Path, name: str, row: int, change: Any) -> None:
    with h5py.File(output, "r+") as file:
        file[name][row] = change(file[name][row])


@pytest.fixture
def long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images are older than the run, although both are of this second."""
    monkeypatch.setattr(recomputing, "_timestamp", lambda _: math.inf)


@pytest.mark.parametrize("name", [*sorted(FORMATS.values()), "out.jsonl", "out.tar"])
@pytest.mark.parametrize("options", [{}, {"dtype": "float16", "pool": "gap"}, {"shard": "2/3"}], ids=str)
def test_rows_of_every_format_come_out_bit_for_bit(
    tmp_path: Path, inputs: list[str], name: str, options: dict[str, Any]
) -> None:
    extract(inputs, tmp_path / name, **options)
    found = verify(tmp_path / name, recompute=100, seed=5)
    assert (found.problems, found.notes) == ((), ())
    assert found.recomputed is not None
    assert found.recomputed.rows == list(range(found.rows))
    assert found.recomputed.seed == 5
    for one in found.recomputed.layers.values():
        assert (one.rows, one.equal, one.largest) == (found.rows - found.failed, found.rows - found.failed, 0)
    assert found.recomputed.layers["count"].tolerance == 0
    assert found.recomputed.layers["vector"].tolerance == (1e-5 if "dtype" not in options else 1e-5 + 2**-10)


def test_the_seed_chooses_the_rows_and_without_one_it_is_said(output: Path) -> None:
    chosen = [verify(output, recompute=7, seed=seed).recomputed.chosen for seed in (1, 1, 2)]  # type: ignore[union-attr]
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(set(chosen[0])) == 7
    drawn = verify(output, recompute=7).recomputed
    again = verify(output, recompute=7, seed=drawn.seed).recomputed  # type: ignore[union-attr]
    assert again.chosen == drawn.chosen  # type: ignore[union-attr]


def test_only_batches_with_chosen_rows_are_computed(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    real = MadeUpEngine.run

    def run(self: MadeUpEngine, inputs: Any) -> Any:
        computed.append(len(inputs[0]))
        return real(self, inputs)

    monkeypatch.setattr(MadeUpEngine, "run", run)
    assert verify(output, recompute=1, seed=0).problems == ()
    assert len(computed) == 1


@pytest.mark.usefixtures("long_ago")
def test_each_row_and_layer_that_differs_is_named_with_its_difference(output: Path) -> None:
    edit(output, "vector", 3, lambda row: row * 1.01)
    edit(output, "block%2Fmap", 4, lambda row: row + np.float32(3e-6))
    edit(output, "count", 5, lambda row: row + 1)
    edit(output, "vector", 6, lambda row: row * np.nan)
    found = verify(output, recompute=ROWS)
    wrong = [problem for problem in found.problems if "CRC" not in problem]
    assert len(wrong) == 3
    assert "layer 'vector': row 3, " in wrong[0]
    assert "relative difference 9." in wrong[0] or "relative difference 1.0e-02" in wrong[0]
    assert wrong[0].endswith("rounding explains 1e-05")
    assert "layer 'count': row 5, " in wrong[1]
    assert "other whole numbers" in wrong[1]
    assert "layer 'vector': row 6, " in wrong[2]
    (note,) = [note for note in found.notes if "NaN" not in note]
    assert note.startswith("layer 'block/map': 1 of 47 rows computed anew differ, by up to 3.")
    assert "another kind of processor" in note
    assert found.recomputed is not None
    assert found.recomputed.layers["block/map"].equal == 46


@pytest.mark.usefixtures("long_ago")
def test_a_model_that_computes_something_else_is_found_out_though_all_checksums_are_right(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = MadeUpEngine.run
    monkeypatch.setattr(
        MadeUpEngine,
        "run",
        lambda self, inputs: {**real(self, inputs), "count": real(self, inputs)["count"] * 2},
    )
    assert verify(output).problems == ()
    assert len(verify(output, recompute=ROWS).problems) == ROWS - len(BROKEN)


def test_images_that_changed_or_are_gone_are_said_and_are_no_damage(output: Path, inputs: list[str]) -> None:
    os.unlink(inputs[1])
    Path(inputs[2]).write_bytes(b"no image any more")
    Image.new("RGB", (8, 8)).save(inputs[3])
    future = os.stat(inputs[3]).st_mtime + 100
    os.utime(inputs[3], (future, future))
    os.utime(inputs[4], (future, future))  # the same picture
    Image.new("RGB", (8, 8)).save(inputs[BROKEN[0]])
    found = verify(output, recompute=ROWS)
    assert found.problems == ()
    assert [note.partition(", '")[0] for note in found.notes] == [
        "row 1",
        "row 2",
        "row 3",
        f"row {BROKEN[0]}",
    ]
    gone, unreadable, changed, mended = found.notes
    assert gone.endswith("is not computed any more, so it was not compared: no such file")
    assert "text, not an image" in unreadable
    assert "was changed since the run" in changed
    assert "had failed and is computed now" in mended
    assert found.recomputed is not None
    assert sorted(set(range(ROWS)) - set(found.recomputed.rows)) == [1, 2, 3, BROKEN[0]]


def test_another_model_and_what_cannot_be_done_again_are_refused(
    output: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ResumeError, match="give all inputs of the run, as it had them"):
        verify(output, recompute=ROWS, inputs=inputs[1:])
    with pytest.raises(UsageError, match="number of rows"):
        verify(output, recompute=-1)
    monkeypatch.setattr(MadeUpModel, "sha256", "11" * 32)
    with pytest.raises(ResumeError, match="its model was"):
        verify(output, recompute=1)


def test_a_merged_output_comes_out_of_the_model_too(tmp_path: Path, inputs: list[str]) -> None:
    parts = []
    for number in (1, 2, 3):
        parts.append(str(tmp_path / f"part{number}.h5"))
        extract(inputs, Path(parts[-1]), shard=f"{number}/3")
    merge(str(tmp_path / "whole.npz"), parts)
    found = verify(tmp_path / "whole.npz", recompute=ROWS)
    assert (found.problems, found.notes) == ((), ())


def test_the_command_says_it_and_has_its_exit_codes(
    output: Path, inputs: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> int:
        return int(cli.main(["verify", str(output), *words], standalone_mode=False))

    assert run("--recompute", "4", "--seed", "9") == 0
    assert "; 4 of 4 rows computed anew (seed 9), 4 bit-equal" in capfd.readouterr().out
    edit(output, "count", 5, lambda row: row + 1)
    assert run("--recompute", "50", "--json") == 65
    told = json.loads(capfd.readouterr().out)
    assert told["recomputed"]["chosen"] == list(range(ROWS))
    assert told["recomputed"]["layers"]["vector"]["bit_equal"] >= 46
    with pytest.raises(UsageError, match="give --recompute K too"):
        run("--seed", "3")
    with pytest.raises(UsageError, match="give --recompute K too"):
        run("--custom", "x.py")


class TestOfRealModels:
    """Of the sample models, with the engine `graph`."""

    @pytest.fixture(autouse=True)
    def real_model(self, monkeypatch: pytest.MonkeyPatch, made_up_model: None) -> None:
        monkeypatch.undo()

    def test_the_model_may_have_moved_and_must_be_the_same(self, tmp_path: Path) -> None:
        model = tmp_path / "model.h5"
        model.write_bytes((SAMPLES / "vgg_shapes.h5").read_bytes())
        images = sorted(map(str, (SAMPLES / "images").glob("*.png")))
        layerprobe.extract(model, images, ["conv5_3", "output"], tmp_path / "out.npz", dtype="float16")
        model.rename(tmp_path / "moved.h5")
        with pytest.raises(NoInputError, match="is no longer at .*: say where it is"):
            layerprobe.verify(tmp_path / "out.npz", recompute=3)
        found = layerprobe.verify(tmp_path / "out.npz", recompute=100, model=tmp_path / "moved.h5")
        assert found.problems == ()
        assert found.recomputed is not None
        assert len(found.recomputed.rows) == len(images)
        with pytest.raises(ResumeError, match="is of another model than"):
            layerprobe.verify(
                tmp_path / "out.npz", recompute=3, model=SAMPLES / "nested_shapes.keras", inputs=images
            )

    def test_arrays_are_given_again(self, tmp_path: Path) -> None:
        given = {
            "image": [str(SAMPLES / "two_inputs_images.npy")],
            "query": [str(SAMPLES / "two_inputs_query.npy")],
        }
        layerprobe.extract(SAMPLES / "two_inputs.keras", given, ["output"], tmp_path / "out.h5")
        with pytest.raises(UsageError, match="is of arrays: give all its inputs again"):
            layerprobe.verify(tmp_path / "out.h5", recompute=3)
        found = layerprobe.verify(tmp_path / "out.h5", recompute=3, inputs=given)
        assert (found.problems, found.notes) == ((), ())
        words = [word for name, (file,) in given.items() for word in ("--input", f"{name}={file}")]
        command = ["verify", str(tmp_path / "out.h5"), "--recompute", "3", *words]
        assert cli.main(command, standalone_mode=False) == 0
