"""What stands in an ONNX file, read without running or trusting it: operators, external data, metadata.

A device has onnxruntime but not the package ``onnx`` (18 MB, which exporting needs), and onnxruntime tells of
a file only what it made of it: that it reads further files, or uses operators that only some builds have,
would show too late or never. So the few fields of the protobuf messages that say so are walked here: tag,
wire type, length. Weights are skipped, not copied. Whatever the bytes are, the answer is a ``Graph`` or
``GraphRefused``.

Source: onnx/onnx.proto3 (field numbers) and protobuf's encoding
(https://protobuf.dev/programming-guides/encoding/). It knows neither tasks nor onnxruntime.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

STANDARD = frozenset({"", "ai.onnx"})
"""The domain of ONNX's own operators, by its two names."""

DEEPEST = 32
"""Graphs inside of graphs (loops, branches) than this are none of ours."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LAST_FIELD = (1 << 29) - 1
_EXTERNAL = 1  # TensorProto.DataLocation

Field: TypeAlias = "tuple[int, int | memoryview]"
"""A field's number and its value; fixed-width numbers are left out."""


class GraphRefused(ValueError):
    """Bytes that are no ONNX file; the text says what is wrong with them."""


@dataclass(frozen=True)
class Graph:
    """A file's facts: every operator as (domain, name), in any depth, and what it says of itself.

    ``opset`` is the version of the standard domain, None without one; ``functions`` are operators that the
    file defines itself; ``external`` says that tensors lie in other files.
    """

    opset: int | None
    operators: frozenset[tuple[str, str]]
    functions: frozenset[tuple[str, str]]
    external: bool
    metadata: Mapping[str, str]


def read(data: bytes) -> Graph:
    """The facts of a serialised ModelProto; raises GraphRefused."""
    found = _Found()
    opset, functions, metadata, graphs = None, set[tuple[str, str]](), dict[str, str](), 0
    for number, value in _fields(memoryview(data)):
        match number, value:
            case 7, memoryview():
                graphs += 1
                found.graph(value, DEEPEST)
            case 8, memoryview():
                domain, version = _text(value, 1), _number(value, 2)
                opset = version if domain in STANDARD else opset
            case 14, memoryview():
                metadata[_text(value, 1)] = _text(value, 2)
            case 25, memoryview():
                functions.add((_text(value, 10), _text(value, 1)))
                found.function(value)
    if graphs != 1:
        raise GraphRefused("it holds no graph" if not graphs else f"it holds {graphs} graphs")
    return Graph(opset, frozenset(found.operators), frozenset(functions), found.external, metadata)


class _Found:
    """What a walk through graphs has come across."""

    def __init__(self) -> None:
        self.operators: set[tuple[str, str]] = set()
        self.external = False

    def graph(self, graph: memoryview, depth: int) -> None:
        """GraphProto: node = 1, initializer = 5, sparse_initializer = 15."""
        self.nodes(graph, 1, depth)
        for number, value in _fields(graph):
            match number, value:
                case 5, memoryview():
                    self.tensor(value)
                case 15, memoryview():
                    self.sparse(value)

    def function(self, function: memoryview) -> None:
        """FunctionProto: node = 7, attribute_proto = 11, the attributes' defaults."""
        self.nodes(function, 7, DEEPEST)
        for number, value in _fields(function):
            if number == 11 and isinstance(value, memoryview):
                self.attribute(value, DEEPEST)

    def nodes(self, parent: memoryview, field: int, depth: int) -> None:
        """NodeProto: op_type = 4, attribute = 5, domain = 7."""
        if not depth:
            raise GraphRefused(f"graphs stand inside of graphs, more than {DEEPEST} deep")
        for number, node in _fields(parent):
            if number == field and isinstance(node, memoryview):
                self.operators.add((_text(node, 7), _text(node, 4)))
                for part, attribute in _fields(node):
                    if part == 5 and isinstance(attribute, memoryview):
                        self.attribute(attribute, depth - 1)

    def attribute(self, attribute: memoryview, depth: int) -> None:
        """AttributeProto: t = 5, g = 6, tensors = 10, graphs = 11, sparse_tensor(s) = 22, 23."""
        for number, value in _fields(attribute):
            match number, value:
                case 5 | 10, memoryview():
                    self.tensor(value)
                case 6 | 11, memoryview():
                    self.graph(value, depth)
                case 22 | 23, memoryview():
                    self.sparse(value)

    def tensor(self, tensor: memoryview) -> None:
        """TensorProto: external_data = 13, data_location = 14."""
        for number, value in _fields(tensor):
            self.external |= number == 13 or (number == 14 and value == _EXTERNAL)

    def sparse(self, sparse: memoryview) -> None:
        """SparseTensorProto: values = 1, indices = 2."""
        for number, value in _fields(sparse):
            if number in {1, 2} and isinstance(value, memoryview):
                self.tensor(value)


def _fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message, in order; raises GraphRefused where the bytes are not one."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if not 0 < number <= _LAST_FIELD:  # which other readers cut to 32 bits: they would see another field
            raise GraphRefused(f"it is not a protobuf message (field {number})")
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
        elif kind == _BYTES:
            size, at = _varint(message, at)
            if size > end - at:
                raise GraphRefused("it is cut short")
            yield number, message[at : at + size]
            at += size
        elif kind in {_FIXED32, _FIXED64}:
            at += 4 if kind == _FIXED32 else 8
            if at > end:
                raise GraphRefused("it is cut short")
        else:
            raise GraphRefused(f"it is not a protobuf message (wire type {kind})")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number at this place, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise GraphRefused("it is cut short")
        byte, at = message[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise GraphRefused("it is not a protobuf message (a number without an end)")


def _text(message: memoryview, number: int) -> str:
    """The text of this field, "" without one; the last one counts."""
    found = b""
    for field, value in _fields(message):
        if field == number and isinstance(value, memoryview):
            found = bytes(value)
    try:
        return found.decode()
    except UnicodeDecodeError as error:
        raise GraphRefused("a name in it is not UTF-8") from error


def _number(message: memoryview, number: int) -> int | None:
    """The number of this field, None without one."""
    found = [value for field, value in _fields(message) if field == number and isinstance(value, int)]
    return found[-1] if found else None
