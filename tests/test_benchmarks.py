"""The README's figures are those that the benchmarks wrote down."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from made_up_model import extract, use_made_up_model, write_inputs

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import measure  # noqa: E402
import table  # noqa: E402


def row(**fields: object) -> measure.Row:
    return measure.Row(**{"claim": "a claim", "unit": "images/s", "ours": [30, 10, 20], **fields})


def test_the_table_in_the_readme_is_what_the_results_give() -> None:
    readme = (ROOT / "README.md").read_text()
    assert readme.count(table.BEGIN) == readme.count(table.END) == 1
    assert table.replaced(readme, table.rendered(table.results())) == readme


def test_every_benchmark_has_its_lines_in_the_table() -> None:
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "report(" in path.read_text()}
    assert scripts - {"measure"} == set(table.SCRIPTS)


def test_a_ratio_is_the_median_of_the_rounds_and_above_one_when_layerprobe_is_ahead() -> None:
    assert row(theirs=[10, 10, 5]).ratio == 3  # of 3, 1, 4
    assert row(unit="s", ours=[2, 5, 1], theirs=[8, 10, 3]).ratio == 3  # of 4, 2, 3


def test_a_missed_target_is_said() -> None:
    assert row(theirs=[10, 10, 5], at_least=3).target == ">= 3 met"
    assert row(theirs=[10, 10, 5], at_least=3.1).target == ">= 3.1 MISSED"
    assert row(unit="s", at_most=20).target == "<= 20 s met"
    assert row(unit="s", at_most=19).target == "<= 19 s MISSED"


def test_rounds_with_a_side_missing_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        _ = row(theirs=[1, 2]).ratio


def test_sides_take_turns() -> None:
    order = []
    taken = measure.alternate(2, {"a": lambda: order.append("a") or 1, "b": lambda: order.append("b") or 2})
    assert order == ["a", "b", "a", "b"]
    assert taken == {"a": [1, 1], "b": [2, 2]}


def test_what_is_reported_becomes_a_line_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    options = argparse.Namespace(rounds=3, images=512, short=False)
    measure.report("one.py", [row(theirs=[10, 10, 5], against="Keras"), row(unit="s", ours=[0.123])], options)
    assert "a claim" in capsys.readouterr().out
    written = json.loads((tmp_path / "one.json").read_text())
    first, *_, compared, alone = table.rendered([written]).splitlines()
    assert first.startswith("Medians of 3 rounds, 20")
    assert compared == "| a claim | 20 images/s | 10 images/s: Keras | 3.00 |"
    assert alone == "| a claim | 0.123 s |  |  |"
    other = {**written, "machine": {**written["machine"], "cores": 1000}}
    unmeasured = {**other, "rounds": None}
    origins = [
        line
        for line in table.rendered([written, unmeasured, other, written, unmeasured]).splitlines()
        if line and not line.startswith("|")
    ]
    cores = written["machine"]["cores"]
    for origin, beginning in zip(
        origins, (f"on {cores} cores", "Counted, not timed", "on 1000 cores"), strict=True
    ):
        assert beginning in origin
    assert table.rendered([written, other, written]).count("| a claim | 0.123 s |  |  |") == 3


def test_a_process_that_fails_ends_the_benchmark_with_its_words() -> None:
    with pytest.raises(SystemExit, match="out of paper"):
        measure.timed([sys.executable, "-c", "raise SystemExit('out of paper')"])


def test_peak_memory_is_that_of_the_process_alone() -> None:
    ballast = bytearray(300 * 2**20)
    for size in (0, 50, 100):
        code = f"import time; kept = b'x' * ({size} << 20); time.sleep(0.2)"
        assert size < measure.peak_memory([sys.executable, "-c", code]) < size + 40
    assert len(ballast) == 300 * 2**20


def test_photos_are_all_different_and_the_same_each_time() -> None:
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    import photos

    sources = photos.originals()
    numbers = range(2 * len(sources))
    first, again = ([photos.photo(n, (40, 30), sources).tobytes() for n in numbers] for _ in range(2))
    assert first == again
    assert len(set(first)) == len(first)


@pytest.mark.slow  # It starts the real command a dozen times.
def test_runs_that_are_interrupted_end_as_others_and_kill_py_tells_of_them() -> None:
    options = ["--short", "--images", "60", "--format", "npz", "--mode", "KILL", "--mode", "worker"]
    script = str(ROOT / "benchmarks" / "kill.py")
    done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("1 of 1 equal") == 2
    assert "killed by SIGKILL" in done.stdout


def test_kill_py_sees_what_is_wrong(tmp_path: Path) -> None:
    import interrupting

    with pytest.MonkeyPatch.context() as patch:
        use_made_up_model(patch)
        inputs = write_inputs(tmp_path / "images")
        (tmp_path / "here").mkdir()
        extract(inputs, tmp_path / "here" / "out.h5")
    spans = interrupting.Spans(0.1, 1.0)
    wanted = interrupting.contents(tmp_path / "here" / "out.h5")
    kind = interrupting.Kind("hdf5", "out.h5")
    sample = interrupting.Sample(tmp_path / "images", kind, True, spans, wanted, 1000)
    place = interrupting.Place(tmp_path / "here", sample)
    place.check()
    assert place.state() == "named"
    (tmp_path / "here" / "left").touch()
    with pytest.raises(interrupting.Wrong, match=r"beside the output there is \['left'\]"):
        place.check()
    (tmp_path / "here" / "left").unlink()
    place.sample.reference["vector"] = b""
    with pytest.raises(interrupting.Wrong, match="'vector' is not that of the uninterrupted run"):
        place.check()
    with h5py.File(place.output, "r+") as file:
        file["vector"][0] += 1
    with pytest.raises(interrupting.Wrong, match=r"verify says: .*CRC-32"):
        place.check()
    with pytest.raises(interrupting.Wrong, match="exit code 1"):
        interrupting.expect(1, "Traceback (most recent call last)", [0, 3])
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"], stderr=subprocess.PIPE)
    with pytest.raises(interrupting.Wrong, match="did not end"):
        interrupting.ended(sleeper, 0.1)
    assert sleeper.returncode is not None
