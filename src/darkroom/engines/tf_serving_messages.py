"""The few messages of TensorFlow Serving's protocol that darkroom speaks, made without TensorFlow.

The package tensorflow-serving-api has them all, but imports TensorFlow. What travels on the wire is field numbers and
types only, so the messages are described here by these, in a pool of their own, where they meet no others. Fields that
darkroom neither writes nor reads are left out: a reader passes over them, as the protocol has it. Sources: of
tensorflow/serving predict.proto, model.proto, get_model_status.proto and prediction_log.proto; of tensorflow
tensor.proto.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

from darkroom.errors import EngineError

DT_FLOAT, DT_UINT8, DT_STRING = 1, 4, 7
"""TensorFlow's numbers for the types of tensors (types.proto)."""

STATES = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
"""Of a version of a model (get_model_status.proto)."""

PACKAGE = "darkroom.serving"

FIELDS: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "Int64Value": {"value": (1, "int64")},
    "ModelSpec": {
        "name": (1, "string"),
        "version": (2, "Int64Value"),
        "signature_name": (3, "string"),
        "version_label": (4, "string"),
    },
    "Dim": {"size": (1, "int64")},
    "TensorShapeProto": {"dim": (2, "repeated Dim")},
    "TensorProto": {
        "dtype": (1, "int32"),
        "tensor_shape": (2, "TensorShapeProto"),
        "tensor_content": (4, "bytes"),
        "float_val": (5, "repeated float"),
        "string_val": (8, "repeated bytes"),
    },
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, "map TensorProto")},
    "PredictResponse": {"outputs": (1, "map TensorProto"), "model_spec": (2, "ModelSpec")},
    "StatusProto": {"error_code": (1, "int32"), "error_message": (2, "string")},
    "ModelVersionStatus": {"version": (1, "int64"), "state": (2, "int32"), "status": (3, "StatusProto")},
    "GetModelStatusRequest": {"model_spec": (1, "ModelSpec")},
    "GetModelStatusResponse": {"model_version_status": (1, "repeated ModelVersionStatus")},
    "PredictLog": {"request": (1, "PredictRequest")},
    "PredictionLog": {"predict_log": (6, "PredictLog")},
}
"""Message -> field -> its number and type; `map` is from strings."""


def _described() -> FileDescriptorProto:
    file = FileDescriptorProto(name="darkroom/serving.proto", package=PACKAGE, syntax="proto3")
    for name, fields in FIELDS.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _add_field(message, field, number=number, kind=kind)
    return file


def _add_field(message: DescriptorProto, name: str, *, number: int, kind: str) -> None:
    manner, _, plain = kind.rpartition(" ")
    field = message.field.add(name=name, number=number)
    field.label = FieldDescriptorProto.LABEL_REPEATED if manner else FieldDescriptorProto.LABEL_OPTIONAL
    if manner == "map":  # which is a list of pairs
        pair = message.nested_type.add(name=f"{name.capitalize()}Entry")
        pair.options.map_entry = True
        _add_field(pair, "key", number=1, kind="string")
        _add_field(pair, "value", number=2, kind=plain)
        plain = f"{message.name}.{pair.name}"
    if plain.islower():
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{plain.upper()}")
    else:
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{plain}"


_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(_described().SerializeToString())


def _class_of(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


PredictRequest = _class_of("PredictRequest")
PredictResponse = _class_of("PredictResponse")
GetModelStatusRequest = _class_of("GetModelStatusRequest")
GetModelStatusResponse = _class_of("GetModelStatusResponse")
PredictionLog = _class_of("PredictionLog")
TensorProto = _class_of("TensorProto")


def predict_request(signature: str, name: str, tensor: Any, *, model: str) -> Any:
    """A `PredictRequest` of one input; a version or label is the caller's to add."""
    request = PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    request.inputs[name].CopyFrom(tensor)
    return request


def warm_up_record(request: Any) -> bytes:
    """A request as one record of a file of warm-up requests."""
    log = PredictionLog()
    log.predict_log.request.CopyFrom(request)
    return bytes(log.SerializeToString())


def pixels_tensor(pixels: npt.NDArray[np.uint8]) -> Any:
    """uint8 numbers of any shape."""
    tensor = TensorProto(dtype=DT_UINT8, tensor_content=pixels.tobytes())
    _set_shape(tensor, pixels.shape)
    return tensor


def strings_tensor(values: Sequence[bytes]) -> Any:
    """Bytes (N,)."""
    tensor = TensorProto(dtype=DT_STRING, string_val=values)
    _set_shape(tensor, (len(values),))
    return tensor


def floats_of(tensor: Any) -> npt.NDArray[np.float32]:
    """The numbers of a float tensor, however they were written; raises `EngineError` for another one."""
    shape = tuple(int(dimension.size) for dimension in tensor.tensor_shape.dim)
    number = int(np.prod(shape))
    if tensor.dtype != DT_FLOAT or min(shape, default=0) < 0:
        raise EngineError(f"TensorFlow Serving answered a tensor of type {tensor.dtype}, not of floats: export it anew")
    if tensor.tensor_content:
        values = np.frombuffer(tensor.tensor_content, "<f4").astype(np.float32)
    else:
        values = np.array(tensor.float_val, np.float32)
        if 0 < len(values) < number:  # what is left out at the end repeats the last value
            values = np.concatenate([values, np.full(number - len(values), values[-1], np.float32)])
    if len(values) != number:
        raise EngineError(f"TensorFlow Serving answered {len(values)} numbers for the shape {shape}: ask its keeper")
    return values.reshape(shape)


def _set_shape(tensor: Any, shape: Sequence[int]) -> None:
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
