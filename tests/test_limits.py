"""What the system does not give: files beyond a few, a folder of somebody else."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
from pathlib import Path

import pytest
from made_up_model import FORMATS, contents, extract, use_made_up_model, write_inputs
from test_signals import words

from layerprobe.errors import LayerprobeError, OutputError

NOBODY = 65534


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    return write_inputs(tmp_path / "images")


def test_twenty_open_files_are_enough(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))

    done = subprocess.run(
        words(tmp_path, pause=0), preexec_fn=few, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 3
    use_made_up_model(monkeypatch)
    extract(inputs, tmp_path / "reference.h5")
    assert contents(tmp_path / "out.h5") == contents(tmp_path / "reference.h5")


def code_of_somebody_else(inputs: list[str], output: Path, words: str) -> int:
    """Run as nobody: 0 if it is refused with these words."""
    child = os.fork()
    if not child:
        code = 1
        try:
            # For good: what a process may do is asked of who it really is.
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            extract(inputs, output)
        except OutputError as error:
            code = 0 if words in str(error) else 2
        except LayerprobeError:
            code = 3
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("name", FORMATS.values())
def test_a_folder_of_somebody_else_is_left_as_it_is(
    inputs: list[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    use_made_up_model(monkeypatch)
    with tempfile.TemporaryDirectory() as theirs:
        os.chmod(theirs, 0o755)
        assert code_of_somebody_else(inputs, Path(theirs, name), "denies writing: use another folder") == 0
        assert os.listdir(theirs) == []
        os.chmod(theirs, 0o700)
        inside = Path(theirs, "folder")
        inside.mkdir()
        assert code_of_somebody_else(inputs, inside / name, "Permission denied") == 0
        assert os.listdir(inside) == []
