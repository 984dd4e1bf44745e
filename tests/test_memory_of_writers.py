"""What memory a writer takes at most, also outside of Python, as the kernel counts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FEW = 1_000

WRITE = """
import sys
from pathlib import Path

import numpy as np

from layerprobe import registry
from layerprobe.columns import Column
from layerprobe.records import Provenance, TensorSpec

output, file_format, rows, channels = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
paths = Column(rows, lambda *some: [f"/folder/of/many/images/{row:07}.png" for row in range(*some)])
writer = registry.find(registry.WRITERS, file_format, "format")(
    output, [TensorSpec("conv", (channels,), "float32")], paths
)
random = np.random.default_rng(0)
for start in range(0, rows, 500):
    writer.write(start, {"conv": random.random((500, channels), "float32")})
writer.sync()
writer.commit({}, Provenance({}, [], {}, {}, {}, {}, {}, ""))
assert "pandas" not in sys.modules
status = Path("/proc/self/status").read_text()
print(next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")
@pytest.mark.parametrize(
    ("name", "file_format", "rows", "channels", "mib_more"),
    [
        ("out.h5", "hdf5", 100_000, 16, 5),
        ("out.parquet", "parquet", 100_000, 16, 12),
        ("out.zarr", "zarr", 100_000, 16, 8),
        ("wide.zarr", "zarr", 20_000, 512, 20),
    ],
)
def test_many_rows_take_the_memory_of_few(
    tmp_path: Path, name: str, file_format: str, rows: int, channels: int, mib_more: int
) -> None:
    def peak(rows: int) -> float:
        options = [tmp_path / f"{rows}-{name}", file_format, rows, channels]
        command = [sys.executable, "-c", WRITE, *map(str, options)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout) / 1024

    few, many = peak(FEW), peak(rows)
    assert many - few < mib_more, f"{few:.1f} MiB for {FEW} rows, {many:.1f} MiB for {rows}"
