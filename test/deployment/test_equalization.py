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

"""Equalized graphs are the same network, and lose less when they are quantized."""

from cgdet_core.deployment.calibration import magnitudes, open_session
from cgdet_core.deployment.equalization import between, equalize
from cgdet_core.deployment.precisions import activations, to_int8
import numpy as np
from numpy.typing import NDArray
from onnx import helper, ModelProto, NodeProto, numpy_helper, TensorProto
import pytest

Array = NDArray[np.float32]
CHANNELS = 8


def conv(data: str, weights: str, result: str, group: int = 1) -> NodeProto:
    return helper.make_node(
        'Conv', [data, f'{weights}.w', f'{weights}.b'], [result], f'of {result}', group=group)


def network(nodes: list[NodeProto], weights: dict[str, Array], outputs: list[str]) -> ModelProto:
    rng = np.random.default_rng(1)
    constants = [numpy_helper.from_array(array, f'{name}.w') for name, array in weights.items()]
    constants += [numpy_helper.from_array(
        rng.normal(size=len(array)).astype(np.float32), f'{name}.b')
        for name, array in weights.items()]
    graph = helper.make_graph(
        nodes, 'network',
        [helper.make_tensor_value_info('images', TensorProto.FLOAT, [1, 1, 16, 16])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=10)


@pytest.fixture
def weights() -> dict[str, Array]:
    """Weights of layers, whose channels have very different magnitudes."""
    rng = np.random.default_rng(0)
    shapes = {'stem': (CHANNELS, 1, 3, 3), 'depthwise': (CHANNELS, 1, 3, 3),
              'dense': (CHANNELS, CHANNELS, 1, 1), 'last': (2, CHANNELS, 1, 1)}
    sizes = np.logspace(-2, 1, CHANNELS)
    return {name: (rng.normal(size=shape) * (sizes if shape[0] == CHANNELS else np.ones(2))[
        :, None, None, None]).astype(np.float32) for name, shape in shapes.items()}


def leaky(data: str, result: str) -> NodeProto:
    return helper.make_node('LeakyRelu', [data], [result], f'of {result}', alpha=0.1)


@pytest.fixture
def chain(weights: dict[str, Array]) -> ModelProto:
    return network(
        [conv('images', 'stem', 'a'), leaky('a', 'b'),
         conv('b', 'depthwise', 'c', CHANNELS), conv('c', 'dense', 'd'),
         helper.make_node('Relu', ['d'], ['e'], 'relu'), conv('e', 'last', 'f')], weights, ['f'])


@pytest.fixture
def images() -> list[Array]:
    rng = np.random.default_rng(2)
    return [rng.random((1, 1, 16, 16), dtype=np.float32) for _ in range(3)]


def run(model: ModelProto, images: Array) -> Array:
    [result] = open_session(model, []).run(None, {'images': images})
    return np.asarray(result)


def equalized(model: ModelProto, images: list[Array]) -> ModelProto:
    return equalize(model, magnitudes(model, between(model), images))


def test_the_network_stays_the_same(chain: ModelProto, images: list[Array]) -> None:
    before = chain.SerializeToString()
    assert between(chain) == ['a', 'c', 'd']
    changed = equalized(chain, images)
    assert chain.SerializeToString() == before != changed.SerializeToString()
    expected = run(chain, images[0])
    np.testing.assert_allclose(
        run(changed, images[0]), expected, atol=1e-5 * np.abs(expected).max())


def test_channels_use_the_range_of_their_tensor(chain: ModelProto, images: list[Array]) -> None:
    changed = equalized(chain, images)
    found = magnitudes(changed, ['a', 'c'], images)
    # Before a depthwise convolution they are equal; elsewhere they share with the weights.
    np.testing.assert_allclose(found['a'], found['a'].max(), rtol=1e-5)
    spread, former = (m['c'].max() / m['c'].min() for m in (
        found, magnitudes(chain, ['c'], images)))
    assert spread < former / 10


def test_int8_loses_less(chain: ModelProto, images: list[Array]) -> None:
    errors = []
    for model in (chain, equalized(chain, images)):
        names = [n for n in activations(model) if n != 'images']
        largest = magnitudes(model, names, images)
        limits = {'images': 1.0} | {name: float(v.max()) for name, v in largest.items()}
        rounded = to_int8(model, limits)
        errors.append(np.abs(run(rounded, images[0]) - run(chain, images[0])).mean())
    assert errors[1] < 0.7 * errors[0]


def test_a_channel_that_is_always_0_stays_finite(
    weights: dict[str, Array], images: list[Array],
) -> None:
    model = network([conv('images', 'stem', 'a'), conv('a', 'dense', 'b')], weights, ['b'])
    for tensor in model.graph.initializer:
        if tensor.name.startswith('stem'):
            values = numpy_helper.to_array(tensor).copy()
            values[3] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    expected = run(model, images[0])
    np.testing.assert_allclose(run(equalized(model, images), images[0]), expected,
                               atol=1e-5 * np.abs(expected).max())


def test_levels_that_share_weights_share_their_factors(
    weights: dict[str, Array], images: list[Array],
) -> None:
    pool = helper.make_node('MaxPool', ['images'], ['half'], 'pool', kernel_shape=[2, 2],
                            strides=[2, 2])
    nodes = [pool]
    for level in ('images', 'half'):
        nodes += [conv(level, 'stem', f'{level} a'), leaky(f'{level} a', f'{level} b'),
                  conv(f'{level} b', 'last', f'{level} c')]
    model = network(nodes, weights, ['images c', 'half c'])
    assert between(model) == ['images a', 'half a']
    changed = equalized(model, images)
    for name in ('images c', 'half c'):
        expected, found = (open_session(m, []).run([name], {'images': images[0]})[0]
                           for m in (model, changed))
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_what_others_read_is_not_scaled(
    weights: dict[str, Array], images: list[Array],
) -> None:
    stem = conv('images', 'stem', 'a')
    first, second = conv('a', 'dense', 'b'), conv('a', 'dense', 'c')
    join = helper.make_node('Concat', ['a', 'b'], ['j'], 'join', axis=1)
    assert between(network([stem, first, second], weights, ['b', 'c'])) == ['a']
    for nodes, outputs in (
            ([stem, first], ['a', 'b']),  # an output
            ([stem, first, join], ['j']),  # another kind of node
            ([stem, first, conv('b', 'dense', 'c')], ['c'])):  # weights with another reader
        model = network(nodes, weights, outputs)
        assert between(model) == [] and magnitudes(model, [], images) == {}
