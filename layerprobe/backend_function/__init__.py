"""What `K.function` was, for Keras 3: functions from some symbolic tensors of a model to others."""

from layerprobe.errors import UnavailableError

try:
    from layerprobe.backend_function.compiled import BackendFunction, function, learning_phase
    from layerprobe.backend_function.gradients import symbolic_gradients
except ModuleNotFoundError as error:
    if error.name != "tensorflow":
        raise
    raise UnavailableError(
        "function() needs TensorFlow, which is missing: run `pip install tensorflow`."
    ) from error

__all__ = ["BackendFunction", "function", "learning_phase", "symbolic_gradients"]
