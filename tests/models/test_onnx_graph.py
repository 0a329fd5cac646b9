from __future__ import annotations

from contextlib import suppress

import onnx
import onnx_files
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from mas_edge.models.onnx_graph import Graph, GraphRefused, read

FILE = onnx_files.watch_model()


def test_a_file_says_what_the_package_onnx_says_of_it():
    model = onnx.load_from_string(FILE)
    assert read(FILE) == Graph(
        opset=20,
        operators=frozenset((node.domain, node.op_type) for node in model.graph.node),
        functions=frozenset(),
        external=False,
        metadata={entry.key: entry.value for entry in model.metadata_props},
    )


def test_weights_in_other_files_are_seen():
    assert read(onnx_files.with_external_data(FILE)).external


def a_branch(*nodes, initializers=()):
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    return helper.make_graph(list(nodes), "branch", [], [out], list(initializers))


def a_file(*nodes, functions=()):
    graph = a_branch(*nodes)
    return helper.make_model(graph, functions=list(functions)).SerializeToString()


def test_operators_and_weights_inside_of_branches_and_attributes_are_seen():
    outside = onnx.load_from_string(onnx_files.with_external_data(FILE)).graph.initializer[0]
    inner = a_branch(helper.make_node("Odd", [], ["y"], domain="acme"), initializers=[outside])
    found = read(a_file(helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)))
    assert found.operators == {("", "If"), ("acme", "Odd")}
    assert found.external
    assert read(a_file(helper.make_node("Constant", [], ["y"], value=outside))).external


def test_operators_that_a_file_defines_itself_are_seen_with_what_is_in_them():
    body = [helper.make_node("Odd", ["x"], ["y"], domain="acme")]
    own = helper.make_function("mine", "Twice", ["x"], ["y"], body, [helper.make_opsetid("acme", 1)])
    found = read(a_file(helper.make_node("Twice", ["x"], ["y"], domain="mine"), functions=[own]))
    assert found.functions == {("mine", "Twice")}
    assert ("acme", "Odd") in found.operators


def test_weights_in_other_files_are_seen_in_the_defaults_of_a_file_s_own_operators():
    outside = onnx.load_from_string(onnx_files.with_external_data(FILE)).graph.initializer[0]
    own = helper.make_function(
        "mine", "Twice", ["x"], ["y"], [], [], attribute_protos=[helper.make_attribute("w", outside)]
    )
    assert read(a_file(functions=[own])).external


def test_a_field_whose_number_others_would_cut_to_32_bits_is_refused():
    hidden = bytes([7 << 3 | 2 | 128, 128, 128, 128, 16])  # field 7 and 2 to the power of 32
    for tag in (hidden, b"\x02"):
        with pytest.raises(GraphRefused, match=r"not a protobuf message \(field "):
            read(FILE + tag + b"\x00")


def field(number, data):
    """A field of bytes as protobuf writes it."""
    size, length = len(data), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + data


def test_graphs_inside_of_graphs_without_end_are_refused():
    graph = b""
    for _ in range(1000):  # protobuf itself would not write this many
        graph = field(1, field(4, b"Loop") + field(5, field(6, graph)))
    with pytest.raises(GraphRefused, match="more than 32 deep"):
        read(field(7, graph))


@pytest.mark.parametrize("file", [b"", b"\x08\x0a", b"PK\x03\x04", b"#!/bin/sh\n", bytes(99), FILE[:1000]])
def test_what_is_no_onnx_file_is_refused(file):
    with pytest.raises(GraphRefused, match=r"^it (holds no graph|is cut short|is not a protobuf message)"):
        read(file)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_graph_or_refused(data):
    with suppress(GraphRefused):
        assert isinstance(read(data), Graph)


@given(st.lists(st.tuples(st.integers(0, len(FILE) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_damaged_file_is_a_graph_or_refused(changes):
    data = bytearray(FILE)
    for place, byte in changes:
        data[place] = byte
    with suppress(GraphRefused):
        assert isinstance(read(bytes(data)), Graph)
