"""Batches that do not fit into memory, and batch sizes found by measuring."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from made_up_model import (
    BROKEN,
    ROWS,
    MadeUpEngine,
    MadeUpModel,
    contents,
    extract,
    use_made_up_model,
    write_inputs,
)

from layerprobe.errors import ResourceError, StoppedError
from layerprobe.formats.opening import open_output
from layerprobe.run import fitting, journal
from layerprobe.run.feeds import Feeds


class Small(MadeUpEngine):
    """Has memory for so many rows, and says so when a batch is begun, or collected."""

    fits = 3
    when = "collect"
    error: type[Exception] = ResourceError
    too_large: float = np.inf
    """A row with this mean or more never fits."""
    sizes: ClassVar[list[int]] = []

    def run(self, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        self._check(inputs)
        self.sizes.append(len(inputs[0]))
        return super().run(inputs)

    def start(self, inputs: Sequence[np.ndarray]) -> Callable[[], dict[str, np.ndarray]]:
        if self.when == "start":
            self._check(inputs)
        return super().start(inputs)

    def _check(self, inputs: Sequence[np.ndarray]) -> None:
        if self.batch_size > self.fits or any(row.mean() >= self.too_large for row in inputs[0]):
            raise self.error("no memory")


@pytest.fixture(autouse=True)
def small_engine(monkeypatch: pytest.MonkeyPatch) -> type[Small]:
    use_made_up_model(monkeypatch)
    monkeypatch.setattr(journal, "SECONDS_BETWEEN_FLUSHES", 0)
    engine = type("Engine", (Small,), {"sizes": []})
    monkeypatch.setattr(MadeUpModel, "engine_class", engine)
    return engine


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    return write_inputs(tmp_path / "images")


def reference(inputs: list[str], output: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    with monkeypatch.context() as patch:
        patch.setattr(MadeUpModel, "engine_class", MadeUpEngine)
        extract(inputs, output)
    return contents(output)


@pytest.mark.parametrize("when", ["start", "collect"])
@pytest.mark.parametrize("error", [ResourceError, MemoryError])
def test_a_batch_that_does_not_fit_is_halved_and_the_run_goes_on(
    inputs: list[str],
    tmp_path: Path,
    small_engine: type[Small],
    monkeypatch: pytest.MonkeyPatch,
    when: str,
    error: type[Exception],
) -> None:
    small_engine.when, small_engine.error = when, error
    report = extract(inputs, tmp_path / "out.h5", batch_size=20)
    assert contents(tmp_path / "out.h5") == reference(inputs, tmp_path / "reference.h5", monkeypatch)
    assert [note for note in report.notes if "memory" in note] == [
        "a batch of 20 rows did not fit into memory: 2 were computed at once"
    ]
    assert set(small_engine.sizes) == {1, 2}
    with open_output(tmp_path / "out.h5") as reader:
        assert reader.provenance["engine"]["batch_size"] == 2


class Large(Small):
    """Has no memory to be built for more than so many rows, nor beside another that is still there."""

    builds = 3
    alive: ClassVar[list[int]] = []

    def __init__(self, batch_size: int, pause: float) -> None:
        if batch_size > self.builds or self.alive:
            raise self.error("no memory to build the model.")
        super().__init__(batch_size, pause)
        self.alive.append(batch_size)

    def __del__(self) -> None:
        if hasattr(self, "batch_size"):
            self.alive.remove(self.batch_size)


@pytest.fixture
def large_engine(monkeypatch: pytest.MonkeyPatch) -> type[Large]:
    engine = type("Engine", (Large,), {"sizes": [], "alive": [], "fits": 1000})
    monkeypatch.setattr(MadeUpModel, "engine_class", engine)
    return engine


@pytest.mark.parametrize("error", [ResourceError, MemoryError])
def test_a_model_that_cannot_be_built_for_a_batch_is_built_for_half_of_it(
    inputs: list[str],
    tmp_path: Path,
    large_engine: type[Large],
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
) -> None:
    large_engine.error = error
    report = extract(inputs, tmp_path / "out.h5", batch_size=20)
    assert contents(tmp_path / "out.h5") == reference(inputs, tmp_path / "reference.h5", monkeypatch)
    assert [note for note in report.notes if "memory" in note] == [
        "a batch of 20 rows did not fit into memory: 2 were computed at once"
    ]
    assert set(large_engine.sizes) == {1, 2}
    with open_output(tmp_path / "out.h5") as reader:
        assert reader.provenance["engine"]["batch_size"] == 2
        assert reader.provenance["run"]["signature"]["batch_size"] == 20


@pytest.mark.parametrize("when", ["start", "collect"])
def test_an_engine_is_let_go_before_a_smaller_one_is_built(
    inputs: list[str], tmp_path: Path, large_engine: type[Large], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    large_engine.builds, large_engine.fits, large_engine.when = 10, 3, when
    report = extract(inputs, tmp_path / "out.h5", batch_size=20)
    assert contents(tmp_path / "out.h5") == reference(inputs, tmp_path / "reference.h5", monkeypatch)
    assert any("20 rows did not fit into memory: 2 were" in note for note in report.notes)


def test_a_model_that_cannot_be_built_for_one_row_ends_the_run(
    inputs: list[str], tmp_path: Path, large_engine: type[Large]
) -> None:
    large_engine.builds = 0
    told = "no memory to build the model, also for one row at a time, of 768 bytes of input"
    with pytest.raises(ResourceError, match=told):
        extract(inputs, tmp_path / "out.h5")
    large_engine.builds, large_engine.fits = 20, 0  # it is built, and too large for what is computed
    with pytest.raises(ResourceError, match="not enough memory to compute it alone"):
        extract(inputs[:4], tmp_path / "out.h5", batch_size=1)
    assert not (tmp_path / "out.h5").exists()


def test_auto_finds_a_batch_size_where_few_rows_fit(
    inputs: list[str], tmp_path: Path, large_engine: type[Large], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = extract(inputs, tmp_path / "out.h5", batch_size="auto")
    assert "batch size 3: more do not fit into memory" in report.notes
    assert contents(tmp_path / "out.h5") == reference(inputs, tmp_path / "reference.h5", monkeypatch)


def test_rows_of_input_that_do_not_fit_beside_the_engine_make_it_smaller(
    inputs: list[str], tmp_path: Path, large_engine: type[Large], monkeypatch: pytest.MonkeyPatch
) -> None:
    large_engine.builds = 100
    empty = Feeds.empty

    def little(feeds: Feeds, size: int) -> Any:
        if size > 1 and max(large_engine.alive, default=0) > most:
            raise MemoryError
        return empty(feeds, size)

    monkeypatch.setattr(Feeds, "empty", little)
    most = 5
    report = extract(inputs, tmp_path / "out.h5", batch_size=20)
    assert any("20 rows did not fit into memory: 5 were" in note for note in report.notes)
    assert contents(tmp_path / "out.h5") == reference(inputs, tmp_path / "reference.h5", monkeypatch)
    most = 0
    with pytest.raises(ResourceError, match="60 rows at a time, of 768 bytes of input each: give a smaller"):
        extract(inputs, tmp_path / "other.h5", batch_size=20)


@pytest.mark.slow
def test_under_a_limit_of_the_system_a_run_is_the_same_or_refused(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent / "sample_models"
    command = "ulimit -v {}; exec {} -m layerprobe extract {} -l conv5_3 {} --batch-size {} -o {}"
    said = []
    for kib in ("unlimited", 1_800_000, 1_500_000, 1_200_000, 1_000_000):
        output = tmp_path / f"{kib}.h5"
        line = command.format(kib, sys.executable, root / "vgg_shapes.h5", root / "images", 512, output)
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=root.parent)
        said.append(done.stderr)
        assert done.returncode == 0 or (done.returncode, "not enough memory" in done.stderr) == (71, True)
        if done.returncode == 0:
            assert contents(output) == contents(tmp_path / "unlimited.h5")
    assert "512 rows did not fit into memory" not in said[0]
    assert any("512 rows did not fit into memory" in text for text in said[1:])


def test_a_row_that_does_not_fit_alone_fails_with_the_bytes_and_the_others_go_on(
    inputs: list[str], tmp_path: Path, small_engine: type[Small], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_engine.fits, small_engine.too_large = 1000, 200.0
    from PIL import Image

    Image.new("RGB", (8, 8), (255, 255, 255)).save(inputs[20])
    report = extract(inputs, tmp_path / "out.h5")
    failed = {failure.index: failure for failure in report.failures}
    assert sorted(failed) == sorted([*BROKEN, 20])
    assert failed[20].stage == "memory"
    # 8 x 8 x 3 float32; the same map, 3 and 1 numbers besides.
    assert failed[20].reason == (
        "not enough memory to compute it alone: it takes 768 bytes of input and 784 of activations, "
        "and what the model needs in between"
    )
    expected = reference(inputs, tmp_path / "reference.h5", monkeypatch)
    with open_output(tmp_path / "out.h5") as found, open_output(tmp_path / "reference.h5") as wanted:
        kept = [row for row in range(ROWS) if row != 20]
        for name in found:
            np.testing.assert_array_equal(found[name][kept], wanted[name][kept])
        assert np.isnan(found["vector"][20]).all()
    assert expected


def test_where_no_row_fits_the_run_ends_for_want_of_memory(
    inputs: list[str], tmp_path: Path, small_engine: type[Small]
) -> None:
    small_engine.fits = 0
    with pytest.raises(ResourceError, match=r"first '.*000.png': not enough memory .* 768 bytes of input"):
        extract(inputs[:5], tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def test_a_model_of_one_batch_size_ends_the_run_instead(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MadeUpModel, "fixed_batch_size", 10)
    with pytest.raises(ResourceError, match="batch of 10 rows, which the model"):
        extract(inputs, tmp_path / "out.h5")


def test_a_halved_run_that_is_interrupted_goes_on(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = iter([False, True])
    with pytest.raises(StoppedError):
        extract(inputs, tmp_path / "out.npz", stop=lambda: next(stops))
    report = extract(inputs, tmp_path / "out.npz", resume=True)
    assert any("2 were computed at once" in note for note in report.notes)
    assert contents(tmp_path / "out.npz") == reference(inputs, tmp_path / "reference.npz", monkeypatch)


class Paced(MadeUpEngine):
    """Fastest with 16 rows at once: each batch costs as much as 8 rows, from 17 on much more."""

    seconds = 0.0
    """What all took so far; nobody waits, so that a busy machine measures the same."""

    def run(self, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        Paced.seconds += (8 + self.batch_size + 8 * max(0, self.batch_size - 16)) * 3e-3
        return super().run(inputs)


def test_auto_takes_the_batch_size_that_measuring_finds_best_and_says_so(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MadeUpModel, "engine_class", Paced)
    clock = SimpleNamespace(perf_counter=lambda: Paced.seconds, monotonic=lambda: Paced.seconds)
    monkeypatch.setattr(fitting, "time", clock)
    many = inputs * 4
    report = extract(many, tmp_path / "out.h5", batch_size="auto")
    (note,) = [note for note in report.notes if note.startswith("batch size")]
    assert note.startswith("batch size 16, measured in rows/s: 4: ")
    assert "32: " in note
    assert "64: " not in note, "it was worse already"
    with open_output(tmp_path / "out.h5") as reader:
        assert reader.provenance["engine"]["batch_size"] == 16
    extract(many, tmp_path / "reference.h5")
    assert contents(tmp_path / "out.h5") == contents(tmp_path / "reference.h5")


def test_auto_stays_within_memory(inputs: list[str], tmp_path: Path, small_engine: type[Small]) -> None:
    small_engine.fits = 8
    report = extract(inputs, tmp_path / "out.h5", batch_size="auto")
    (note,) = [note for note in report.notes if note.startswith("batch size")]
    assert note.split(",")[0] in ("batch size 4", "batch size 8")
    assert "16: " not in note


def test_a_resume_takes_the_batch_size_that_was_found_before(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MadeUpModel, "engine_class", MadeUpEngine)
    options: dict[str, Any] = {"batch_size": "auto", "resume": True}
    with pytest.raises(StoppedError):
        extract(inputs, tmp_path / "out.h5", stop=lambda: True, batch_size=5)
    for notes in ((), ("it was finished already: there was nothing to do",)):
        report = extract(inputs, tmp_path / "out.h5", **options)
        assert set(notes) <= set(report.notes)
        assert not any(note.startswith("batch size") for note in report.notes)
    with open_output(tmp_path / "out.h5") as reader:
        assert reader.provenance["engine"]["batch_size"] == 5


def test_with_no_rows_to_measure_auto_takes_the_usual_size(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MadeUpModel, "engine_class", MadeUpEngine)
    report = extract(inputs[:3], tmp_path / "out.h5", batch_size="auto")
    assert any("too little to measure" in note for note in report.notes)
