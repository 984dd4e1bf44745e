"""Start-up is a feature: what a command does not need, it does not import."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from layerprobe.cli import COMMANDS

SAMPLES = Path(__file__).parent.parent / "sample_models"
FRAMEWORKS = {"tensorflow", "keras", "jax", "torch", "tf_keras", "openvino"}


def imported_by(*arguments: str) -> set[str]:
    """Top-level packages that are loaded after a run of the command line in a fresh process."""
    code = (
        "import sys, json\n"
        "from layerprobe.cli import main\n"
        f"sys.argv = ['layerprobe', *{arguments!r}]\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert end.code in (None, 0), end.code\n"
        "sys.stderr.write('\\n' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(result.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([command, "--help"] for command in COMMANDS)], ids=" ".join
)
def test_help_imports_neither_numpy_nor_anything_heavy(arguments: list[str]) -> None:
    assert not imported_by(*arguments) & (FRAMEWORKS | {"numpy", "h5py", "PIL", "rich"})


def test_without_arguments_the_help_is_shown_as_it_is() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "layerprobe"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: layerprobe")
    assert "\nCommands:\n" in result.stderr


@pytest.mark.parametrize("model", ["vgg_shapes.h5", "vgg_shapes.keras", "nested_shapes.keras"])
def test_layers_never_imports_a_framework(model: str) -> None:
    """OpenVINO, which works out the shapes, is none: it takes a fifth of a second."""
    assert not imported_by("layers", str(SAMPLES / model)) & (FRAMEWORKS - {"openvino"} | {"rich", "PIL"})


def test_files_of_this_machine_need_nothing_that_reads_stores(tmp_path: Path) -> None:
    image = str(SAMPLES / "images" / "star_09.png")
    out = str(tmp_path / "out.npz")
    loaded = imported_by("extract", str(SAMPLES / "vgg_shapes.h5"), "-l", "predictions", image, "-o", out)
    assert not loaded & {"fsspec", "aiohttp", "s3fs", "pyarrow", "huggingface_hub"}


def test_openvino_reports_nothing_and_converts_nothing_unless_it_is_asked_to() -> None:
    code = (
        "import sys\n"
        "from layerprobe.engines.openvino_import import import_openvino\n"
        "import_openvino()\n"
        "import openvino\n"
        "print(*(name for name in sys.modules if 'telemetry' in name or name.endswith('.ovc')))\n"
        "try:\n    openvino.convert_model('nothing.onnx')\n"
        "except Exception as error:\n    print(type(error).__module__)\n"
        "print('openvino_telemetry' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["", "openvino.tools.ovc.error", "False"]


def test_conversions_are_not_reported_where_openvino_was_imported_with_its_reporter(tmp_path: Path) -> None:
    code = (
        "from openvino_telemetry.utils.opt_in_checker import ConsentCheckResult, OptInChecker\n"
        "from openvino_telemetry.utils.sender import TelemetrySender\n"
        "OptInChecker.check = lambda *_: ConsentCheckResult.ACCEPTED  # also where CI is set\n"
        "told = []\n"
        "TelemetrySender.send = lambda *what: told.append(what)\n"
        "import openvino\n"
        "from layerprobe.engines import openvino_import\n"
        "for convert in (openvino_import.convert_model, openvino.convert_model):\n"
        "    told.clear()\n"
        "    try:\n        convert('nothing.onnx')\n"
        "    except Exception as error:\n        print(type(error).__module__, bool(told))\n"
    )
    home = {**os.environ, "HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=home
    )
    assert result.stdout.splitlines() == ["openvino.tools.ovc.error False", "openvino.tools.ovc.error True"]


def test_importing_the_library_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import layerprobe; print(*(set(sys.modules) - before))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in result.stdout.split()}
    assert not loaded & (FRAMEWORKS | {"numpy", "h5py", "PIL", "click", "rich"})


@pytest.mark.slow
def test_every_public_name_can_be_imported() -> None:
    code = (
        "import layerprobe; print(*(type(getattr(layerprobe, name)).__name__ for name in layerprobe.__all__))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "module" not in result.stdout.split(), "a file of the same name stands in the way"


@pytest.mark.parametrize(("ending", "code"), [("KeyboardInterrupt()", 130), ("SystemExit(143)", 143)])
@pytest.mark.parametrize("wrapped", ["ImportError", "SystemError"])
def test_a_signal_that_c_code_wraps_in_an_error_ends_the_command_as_any_other(
    tmp_path: Path, wrapped: str, ending: str, code: int
) -> None:
    package = tmp_path / "openvino"
    package.mkdir()
    (package / "__init__.py").write_text(f"raise {wrapped}('initialization failed') from {ending}")
    command = [sys.executable, "-m", "layerprobe", "extract", str(SAMPLES / "vgg_shapes.h5"), "-l", "output"]
    command += [str(SAMPLES / "images" / "star_09.png"), "-o", str(tmp_path / "out.npz")]
    path = f"{tmp_path}{os.pathsep}{Path(__file__).parent.parent}"
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr


def test_type_checkers_of_users_are_told_that_there_are_types() -> None:
    root = Path(__file__).parent.parent
    assert (root / "layerprobe" / "py.typed").is_file()
    data = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert "py.typed" in data["layerprobe"], "and it is installed"
