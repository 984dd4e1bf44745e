"""Lines about progress, where no bar can move."""

import pytest

from layerprobe.cli import progress


def test_lines_count_from_where_the_run_began(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 60.0, 64.0, 70.0, 80.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    update = progress._lines("rows")
    for done in (20, 20, 55, 100):  # loading took a minute; 20 rows were there already
        update(done, 100, 3)
    assert capsys.readouterr().err == "layerprobe: 55 of 100 rows, 0.5 rows/s, 90 s left, 3 failed\n"
