"""Kill runs of `layerprobe extract` at random times, resume each until it is done, and compare the outputs.

    python benchmarks/kill.py [--runs 200] [--signal KILL] [--seed 0]

Every output must equal that of an uninterrupted run, every row of every layer bit for bit. The command is the
real one, in a process of its own; it is killed while it starts, computes, writes, commits and tidies up.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import layerprobe

MODEL = Path(__file__).parent.parent / "sample_models" / "vgg_shapes.h5"
OUTPUTS = ("out.h5", "out.npz", "out", "out.safetensors")
LAYERS = ("conv3_2", "output")


def write_images(folder: Path, count: int) -> None:
    random_numbers = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        noise = random_numbers.integers(0, 256, (28, 28, 3), "uint8")
        Image.fromarray(noise).save(folder / f"{number:05}.png")
    (folder / "00013.png").write_bytes(b"no image")


def command(images: Path, output: Path) -> list[str]:
    layers = [word for layer in LAYERS for word in ("-l", layer)]
    options = ["--batch-size", "4", "--resume", "-q", "-o", str(output)]
    return [sys.executable, "-m", "layerprobe", "extract", str(MODEL), str(images), *layers, *options]


def contents(output: Path) -> dict[str, bytes]:
    with layerprobe.open(output) as reader:
        found = {layer: np.asarray(reader[layer]).tobytes() for layer in reader}
        return found | {"texts": repr((reader.paths, reader.status, reader.error)).encode()}


def run_until_done(images: Path, output: Path, number: int, longest: float, chance: random.Random) -> int:
    """Start, kill and start again; gives how often it was killed."""
    kills = 0
    while True:
        process = subprocess.Popen(command(images, output), stderr=subprocess.PIPE)
        try:
            _, told = process.communicate(timeout=chance.uniform(longest / 5, longest))
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            _, told = process.communicate()
        if process.returncode == 3:  # done, and one image is broken
            return kills
        if process.returncode not in (-number, 128 + number):
            raise SystemExit(f"exit code {process.returncode}: {told.decode()}")
        kills += 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--signal", default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chance, number = random.Random(asked.seed), getattr(signal, f"SIG{asked.signal}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_images(folder / "images", asked.images)
        seconds = []
        for name in ("warm_up.npz", "reference.npz"):
            started = time.monotonic()
            uninterrupted = command(folder / "images", folder / name)
            assert subprocess.run(uninterrupted, stderr=subprocess.DEVNULL).returncode == 3
            seconds.append(time.monotonic() - started)
        longest = min(seconds)
        reference, kills = contents(folder / "reference.npz"), 0
        for run in range(asked.runs):
            (folder / str(run)).mkdir()
            output = folder / str(run) / OUTPUTS[run % len(OUTPUTS)]
            kills += run_until_done(folder / "images", output, number, longest, chance)
            assert contents(output) == reference, f"run {run}: {output.name} differs"
            assert [path.name for path in output.parent.iterdir()] == [output.name]
            subprocess.run(["rm", "-r", str(output.parent)], check=True)
            if (run + 1) % 10 == 0:
                print(
                    f"{run + 1} outputs equal the reference, after {kills} times SIG{asked.signal}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
