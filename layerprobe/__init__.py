"""The activations of any layer of a saved Keras model.

Every public name is imported on first use, so that `import layerprobe` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from layerprobe.version import __version__

if TYPE_CHECKING:
    from layerprobe.backend_function import function, learning_phase, symbolic_gradients
    from layerprobe.class_maps.compute import cam
    from layerprobe.diagnosis.examination import doctor
    from layerprobe.errors import LayerprobeError
    from layerprobe.formats.opening import open_output as open
    from layerprobe.layer_gradients import gradients
    from layerprobe.layer_listing import layers
    from layerprobe.loading.build import load_model
    from layerprobe.merging.merge import merge
    from layerprobe.pipeline import extract
    from layerprobe.planning import dry_run
    from layerprobe.probe import Probe
    from layerprobe.reporting.report import report
    from layerprobe.similarity import compare
    from layerprobe.statistics import output_statistics
    from layerprobe.verification import verify

__all__ = [
    "LayerprobeError",
    "Probe",
    "__version__",
    "cam",
    "compare",
    "doctor",
    "dry_run",
    "extract",
    "function",
    "gradients",
    "layers",
    "learning_phase",
    "load_model",
    "merge",
    "open",
    "output_statistics",
    "report",
    "symbolic_gradients",
    "verify",
]

_PUBLIC = {
    "LayerprobeError": "layerprobe.errors:LayerprobeError",
    "Probe": "layerprobe.probe:Probe",
    "cam": "layerprobe.class_maps.compute:cam",
    "compare": "layerprobe.similarity:compare",
    "doctor": "layerprobe.diagnosis.examination:doctor",
    "dry_run": "layerprobe.planning:dry_run",
    "extract": "layerprobe.pipeline:extract",
    "function": "layerprobe.backend_function:function",
    "gradients": "layerprobe.layer_gradients:gradients",
    "layers": "layerprobe.layer_listing:layers",
    "learning_phase": "layerprobe.backend_function:learning_phase",
    "load_model": "layerprobe.loading.build:load_model",
    "merge": "layerprobe.merging.merge:merge",
    "open": "layerprobe.formats.opening:open_output",
    "output_statistics": "layerprobe.statistics:output_statistics",
    "report": "layerprobe.reporting.report:report",
    "symbolic_gradients": "layerprobe.backend_function:symbolic_gradients",
    "verify": "layerprobe.verification:verify",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'layerprobe' has no attribute {name!r}")
    module, attribute = _PUBLIC[name].split(":")
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
