"""What a Lambda layer computes, as data: parsed from text, decoded from byte code, built by every engine."""

from layerprobe.modelfile.expressions.evaluate import evaluate
from layerprobe.modelfile.expressions.language import parse_expression
from layerprobe.modelfile.expressions.operations import OPERATIONS
from layerprobe.modelfile.expressions.tree import Expression, Input

__all__ = ["OPERATIONS", "Expression", "Input", "evaluate", "parse_expression"]
