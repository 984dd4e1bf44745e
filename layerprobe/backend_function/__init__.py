"""What `K.function` was, for Keras 3: functions from some symbolic tensors of a model to others."""

from layerprobe.backend_function.compiled import BackendFunction, function, learning_phase
from layerprobe.backend_function.gradients import symbolic_gradients

__all__ = ["BackendFunction", "function", "learning_phase", "symbolic_gradients"]
