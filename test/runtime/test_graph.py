# Copyright 2026 cgdet_ros maintainers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Operators of an ONNX file, and files that may never end."""

from pathlib import Path
from typing import Any

from cgdet_core.errors import UserError
from cgdet_core.runtime.inference.graph import check_terminates, operators
import pytest

onnx = pytest.importorskip('onnx', reason='onnx is not installed')
SHIPPED = Path(__file__).resolve().parents[2] / 'models' / 'thermal_int8.onnx'


def model(node: Any, functions: tuple = ()) -> bytes:
    graph = onnx.helper.make_graph([node], 'g', [], [])
    content: bytes = onnx.helper.make_model(graph, functions=functions).SerializeToString()
    return content


def endless() -> Any:
    """Return a loop whose condition stays true."""
    value = onnx.helper.make_tensor_value_info
    body = onnx.helper.make_graph(
        [onnx.helper.make_node('Identity', ['go'], ['on'])], 'body',
        [value('i', onnx.TensorProto.INT64, []), value('go', onnx.TensorProto.BOOL, [])],
        [value('on', onnx.TensorProto.BOOL, [])])
    return onnx.helper.make_node('Loop', ['', 'true'], [], body=body)


def nested() -> Any:
    branch = onnx.helper.make_graph([endless()], 'branch', [], [])
    return onnx.helper.make_node('If', ['yes'], [], then_branch=branch, else_branch=branch)


def in_function() -> bytes:
    function = onnx.helper.make_function(
        'ours', 'f', [], [], [endless()], [onnx.helper.make_opsetid('', 18)])
    return model(onnx.helper.make_node('f', [], [], domain='ours'), (function,))


@pytest.mark.parametrize('content', [
    lambda: model(endless()), lambda: model(nested()), in_function,
    # Fields that no reader knows: a group, and 8 and 4 bytes.
    lambda: b'\xf9\x3e12345678\xfd\x3e1234' + model(endless())])
def test_a_loop_is_refused_wherever_it_is(content: Any) -> None:
    with pytest.raises(UserError, match='net.onnx contains a Loop, which may never end'):
        check_terminates(content(), 'net.onnx')


@pytest.mark.parametrize('content', [
    b'no onnx', b'\xff' * 12, model(onnx.helper.make_node('Relu', ['x'], ['y']))[:-1],
    b'\xfb\x3e\xfc\x3e' + model(endless())])
def test_a_damaged_file_is_refused(content: bytes) -> None:
    with pytest.raises(UserError, match='is not an ONNX file'):
        check_terminates(content, 'net.onnx')


def test_other_files_pass() -> None:
    content = SHIPPED.read_bytes()
    check_terminates(content, 'net.onnx')
    expected = [node.op_type for node in onnx.load(SHIPPED).graph.node]
    assert [name.decode() for name in operators(memoryview(content), 'model')] == expected
