"""The networks of estimators as ONNX graphs: what `skl2onnx` asks of a model that it does not know."""

from __future__ import annotations

from typing import Any

import numpy as np

OPERATORS = {"relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid", "softmax": "Softmax", "exp": "Exp"}


def shapes(operator: Any) -> None:
    """Set types and shapes of the outputs: label and probabilities, or numbers."""
    from skl2onnx.common.data_types import Int64TensorType, StringTensorType

    model, rows = operator.raw_operator, operator.inputs[0].get_first_dimension()
    tensor = type(operator.inputs[0].type)
    if not hasattr(model, "classes_"):
        operator.outputs[0].type = _floating(tensor)([rows, model.n_outputs_])
        return
    words = model.classes_.dtype.kind in "OUS"
    shape = [rows, model.n_outputs_] if model._multilabel else [rows]
    operator.outputs[0].type = (StringTensorType if words else Int64TensorType)(shape)
    operator.outputs[1].type = _floating(tensor)([rows, len(model.classes_)])


def convert(scope: Any, operator: Any, container: Any) -> None:
    """Write the network in evaluation, in float64 if the inputs are doubles, else in float32."""
    from onnx import TensorProto
    from skl2onnx.common.data_types import DoubleTensorType

    model = operator.raw_operator
    double = isinstance(operator.inputs[0].type, DoubleTensorType)
    proto = TensorProto.DOUBLE if double else TensorProto.FLOAT

    def node(kind: str, inputs: list[str], output: str | None = None, **more: Any) -> str:
        output = output or scope.get_unique_variable_name(kind.lower())
        container.add_node(kind, inputs, output, name=scope.get_unique_operator_name(kind), **more)
        return output

    def constant(values: Any, kind: int = proto) -> str:
        name = scope.get_unique_variable_name("constant")
        container.add_initializer(name, kind, values.shape, np.ravel(values))
        return str(name)

    y = node("Cast", [operator.inputs[0].full_name], to=proto)
    last = len(model.coefs_) - 1
    for i, (w, b) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        y = node("Gemm", [y, constant(w), constant(b)])
        function = OPERATORS.get(model.out_activation_ if i == last else model.activation)
        y = node(function, [y]) if function else y
    if not hasattr(model, "classes_"):
        node("Identity", [y], operator.outputs[0].full_name)
        return
    label, shares = (output.full_name for output in operator.outputs)
    if model._multilabel:
        node("Identity", [y], shares)
        above = node("Greater", [y, constant(np.array(0.5))])
        node("Cast", [above], label, to=TensorProto.INT64)
        return
    if len(model.classes_) == 2:
        node("Concat", [node("Sub", [constant(np.array(1.0)), y]), y], shares, axis=1)
    else:
        node("Identity", [y], shares)
    place = node("ArgMax", [shares], axis=1, keepdims=0)
    words = model.classes_.dtype.kind in "OUS"
    names = np.array([str(name).encode() for name in model.classes_]) if words else model.classes_.astype(int)
    node("Gather", [constant(names, TensorProto.STRING if words else TensorProto.INT64), place], label)


def _floating(tensor: Any) -> Any:
    """The type of tensor in which the network computes, for inputs of that type."""
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    return DoubleTensorType if issubclass(tensor, DoubleTensorType) else FloatTensorType
