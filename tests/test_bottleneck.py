import pytest

from layerprobe.run.bottleneck import bound_by


@pytest.mark.parametrize(
    ("seconds", "stage"),
    [
        ({"load": 0.4, "input": 0.1, "compute": 9.0, "write": 0.5, "decode": 17.0}, "compute"),
        ({"load": 0.4, "input": 5.0, "compute": 3.0, "read": 1, "decode": 8, "preprocess": 4}, "decode"),
        ({"load": 0.4, "input": 5.0, "compute": 3.0, "write": 0.5, "read": 9, "decode": 8}, "read"),
        ({"load": 0.4, "input": 0.1, "compute": 3.0, "write": 3.5, "read": 9, "decode": 8}, "write"),
        ({"load": 0.4, "input": 0.1, "compute": 0.1, "write": 0.1, "decode": 0.1}, "load"),
    ],
)  # fmt: skip
def test_the_stage_that_the_run_waited_for_bounds_it_not_the_busiest(
    seconds: dict[str, float], stage: str
) -> None:
    assert bound_by(seconds) == stage
