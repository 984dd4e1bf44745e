"""The program in a shell: streams that are full, closed or not read to the end, and its environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("beside_samples")

MODEL = "sample_models/vgg_shapes.h5"
IMAGE = "sample_models/images/circle_01.png"


def shell(line):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    line = line.replace("layerprobe", f"{sys.executable} -m layerprobe", 1)
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment, timeout=60)
    return done.returncode, done.stderr


@pytest.mark.parametrize("buffering", ["", "PYTHONUNBUFFERED=1 "])
def test_a_full_standard_output_is_told(buffering):
    code, err = shell(f"{buffering}layerprobe layers {MODEL} --json >/dev/full")
    assert (code, err) == (74, "layerprobe: cannot write to standard output: No space left on device\n")


def test_a_reader_that_goes_away_ends_it_quietly():
    code, err = shell(f"layerprobe layers {MODEL} --json | sleep 0; exit ${{PIPESTATUS[0]}}")
    assert (code, err) == (141, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_do_no_harm(closed):
    code, err = shell(f"layerprobe layers {MODEL} {closed}")
    assert (code, err) == (0, "")


def test_help_on_a_full_disk_is_told():
    code, err = shell("layerprobe --help >/dev/full")
    assert (code, err) == (74, "layerprobe: cannot write to standard output: No space left on device\n")


def test_another_backend_of_keras_is_named():
    command = f"layerprobe extract {MODEL} -l conv5_3 --engine keras {IMAGE}"
    code, err = shell(f"KERAS_BACKEND=torch {command}")
    assert code == 69
    assert err == (
        "layerprobe: layerprobe runs Keras on TensorFlow or JAX: set KERAS_BACKEND to tensorflow or jax. "
        "Received: torch\n"
    )
