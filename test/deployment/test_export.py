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

"""Export: PyTorch and ONNX Runtime agree, and invalid input leaves no files."""

from collections.abc import Callable
from dataclasses import replace
import json
from pathlib import Path
import pickle
import shutil

from cgdet_core.data.coco import load_coco
from cgdet_core.deployment.calibration import CalibrationFrames
from cgdet_core.deployment.export import export
from cgdet_core.detection.predict import open_detector
from cgdet_core.detection.student import load_student
from cgdet_core.errors import UserError
from cgdet_core.nets.csp_trunk import CSPTrunk
from cgdet_core.nets.pyramid import TRUNKS
from cgdet_core.runtime import DetectionCard, Detector, load_card
from cgdet_core.runtime.imaging.frames import read_thermal
from cgdet_core.runtime.inference.card import file_sha256, save_card
from cgdet_core.runtime.inference.onnxruntime import OnnxRuntimeSession
import numpy as np
import onnx
from onnx import numpy_helper
import pytest
import torch
from torch import Tensor


def compare(one: Detector, two: Detector, frames: list[np.ndarray]) -> tuple[float, float]:
    """Return the largest difference of box corners (input pixels) and of scores."""
    boxes = scores = 0.0
    for frame in frames:
        for detector in (one, two):
            detector.detect(frame)
        np.testing.assert_array_equal(one.input, two.input)
        # Nearly equal best scores may be in another order, and the last of the top-k may be
        # another cell: compare each other cell with its nearest.
        best = one.scores[0].max(1)
        sure = np.flatnonzero(best > best.min() + 1e-4)
        assert len(sure) > 20
        far = np.abs(one.boxes[0][:, None] - two.boxes[0][None]).max(-1)
        far_scores = np.abs(one.scores[0][:, None] - two.scores[0][None]).max(-1)
        nearest = (far + far_scores).argmin(1)[sure]
        boxes = max(boxes, float(far[sure, nearest].max()))
        scores = max(scores, float(far_scores[sure, nearest].max()))
    return boxes, scores


def test_pytorch_and_onnx_runtime_agree(trained: Path, onnx_model: Path, scenes: Path) -> None:
    frames = [read_thermal(r.path) for r in load_coco(scenes).images]
    boxes, scores = compare(
        open_detector(trained / 'last.ckpt'), Detector.load(onnx_model), frames)
    assert boxes < 0.05 and scores < 1e-4


def test_they_agree_on_real_frames(trained: Path, onnx_model: Path, real_data: Path) -> None:
    records = load_coco(real_data / 'val_thermal.json').images[::10]
    boxes, scores = compare(open_detector(trained / 'last.ckpt'), Detector.load(onnx_model),
                            [read_thermal(r.path) for r in records])
    assert boxes < 0.05 and scores < 1e-4


def test_the_file_holds_one_static_fused_graph(onnx_model: Path) -> None:
    model = onnx.load(onnx_model)
    onnx.checker.check_model(model)
    kinds = {node.op_type for node in model.graph.node}
    assert 'BatchNormalization' not in kinds and 'TopK' in kinds
    assert {node.domain for node in model.graph.node} <= {'', 'ai.onnx'}
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
              for v in (*model.graph.input, *model.graph.output)}
    cells = 16 * 20 + 8 * 10 + 4 * 5
    assert shapes == {'images': [1, 1, 128, 160], 'boxes': [1, min(300, cells), 4],
                      'scores': [1, min(300, cells), 3]}


def test_any_number_of_images_where_the_batch_is_open(
    tmp_path: Path, trained: Path, detector: Detector, scenes: Path,
) -> None:
    path = tmp_path / 'open.onnx'
    card = export(trained / 'last.ckpt', path, dynamic_batch=True)
    for model in (path, tmp_path / 'half.onnx'):
        if model != path:
            export(path, model, 'fp16')
        session = OnnxRuntimeSession(model, card)
        assert session.max_batch > 1 and card.top_k == detector.card.top_k
        single = OnnxRuntimeSession(path, card) if model == path else session
        frames = [read_thermal(r.path) for r in load_coco(scenes).images[:3]]
        for count in (1, 2, 3):
            images = np.concatenate([seen(detector, f) for f in frames[:count]])
            scores = session.run({'images': images})['scores']
            for i in range(count):
                one = single.run({'images': images[i:i + 1]})['scores']
                np.testing.assert_allclose(scores[i].max(1), one[0].max(1), atol=1e-3)


def seen(detector: Detector, frame: np.ndarray) -> np.ndarray:
    """Return the network input of a frame."""
    detector.preprocess(frame)
    return detector.input.copy()


def test_the_card_describes_the_file(trained: Path, onnx_model: Path) -> None:
    card = json.loads(onnx_model.with_suffix('.json').read_text())
    student, _ = load_student(trained / 'last.ckpt')
    weights = sum(p.numel() for p in student.parameters())
    assert 0.8 * weights < card['parameters'] <= weights
    assert card['gflops'] > 0 and card['training']['recipe']['name'] == 'tiny'
    assert (card['version'], card['task']) == (2, 'detection')
    assert card['inputs']['images']['shape'] == [1, 1, 128, 160]
    assert card['outputs']['boxes']['shape'] == [1, 300, 4]


class Malicious:
    """Write a file when unpickled."""

    def __reduce__(self):
        return Path.touch, (Path('/tmp/cgdet_test_was_here'),)


def test_a_pickle_that_executes_is_refused(tmp_path: Path) -> None:
    mark = Path('/tmp/cgdet_test_was_here')
    mark.unlink(missing_ok=True)
    for name, content in (('a.ckpt', pickle.dumps(Malicious())),):
        (tmp_path / name).write_bytes(content)
    torch.save({'cgdet': Malicious(), 'state_dict': {}}, tmp_path / 'b.ckpt')
    for name in ('a.ckpt', 'b.ckpt'):
        with pytest.raises(UserError, match='is not a checkpoint of "cgdet train": '):
            export(tmp_path / name, tmp_path / 'm.onnx')
    assert not mark.exists()


def test_a_trunk_that_onnx_cannot_hold_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trained: Path,
) -> None:
    class Asking(CSPTrunk):
        def forward(self, x: Tensor) -> list[Tensor]:
            return super().forward(x if float(x.sum()) < 1 else 1 - x)

    monkeypatch.setitem(TRUNKS, 'csp', lambda c: Asking(c.in_channels, c.channels, c.depths))
    with pytest.raises(UserError, match='cannot hold the trunk csp of .*last.ckpt'):
        export(trained / 'last.ckpt', tmp_path / 'out.onnx')
    assert not list(tmp_path.iterdir())


def test_invalid_input_is_explained_and_leaves_no_files(tmp_path: Path, trained: Path) -> None:
    torch.save({'weights': torch.zeros(1)}, tmp_path / 'other.ckpt')
    (tmp_path / 'empty.ckpt').write_bytes(b'')
    half = (trained / 'last.ckpt').read_bytes()
    (tmp_path / 'half.ckpt').write_bytes(half[:len(half) // 2])
    entry = torch.load(trained / 'last.ckpt', weights_only=True)['cgdet']
    torch.save({'cgdet': entry, 'state_dict': [1]}, tmp_path / 'list.ckpt')
    before = sorted(tmp_path.iterdir())
    for source, output, words in (
            (tmp_path / 'no.ckpt', 'm.onnx', 'does not exist'),
            (tmp_path / 'other.ckpt', 'm.onnx', 'not a checkpoint of'),
            (tmp_path / 'empty.ckpt', 'm.onnx', 'not a checkpoint'),
            (tmp_path / 'half.ckpt', 'm.onnx', 'not a checkpoint'),
            (tmp_path / 'list.ckpt', 'm.onnx', 'does not fit this version'),
            (trained / 'last.ckpt', 'm.engine', 'end in .onnx'),
            (tmp_path / 'no.onnx', 'm.onnx', 'does not exist')):
        with pytest.raises(UserError, match=words):
            export(source, tmp_path / output)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite_are_not_exported(
    tmp_path: Path, trained: Path, onnx_model: Path, value: float,
) -> None:
    data = torch.load(trained / 'last.ckpt', weights_only=True)
    name = 'student.head.cls_out.bias'
    data['state_dict'][name][0] = value
    torch.save(data, tmp_path / 'bad.ckpt')
    model = onnx.load(onnx_model)
    weights = next(i for i in model.graph.initializer if len(i.dims) > 1)
    values = numpy_helper.to_array(weights).copy()
    values.flat[1] = value
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    onnx.save(model, tmp_path / 'bad.onnx')
    card = load_card(onnx_model, DetectionCard)
    save_card(replace(card, onnx_sha256=file_sha256(tmp_path / 'bad.onnx')),
              tmp_path / 'bad.onnx')
    before = sorted(tmp_path.iterdir())
    for source, bad in ((tmp_path / 'bad.ckpt', name), (tmp_path / 'bad.onnx', weights.name)):
        for precision in ('fp32', 'fp16'):
            with pytest.raises(UserError, match=rf'weights that are not finite \(in {bad}\)'):
                export(source, tmp_path / 'm.onnx', precision)
    with pytest.raises(UserError, match='bad.onnx has weights that are not finite'):
        Detector.load(tmp_path / 'bad.onnx')
    assert sorted(tmp_path.iterdir()) == before


def test_impossible_precisions_are_explained(
    tmp_path: Path, trained: Path, onnx_model: Path, rgb_teacher: Path,
) -> None:
    checkpoint = trained / 'last.ckpt'
    frames = CalibrationFrames('set.json', [np.zeros((128, 160), np.uint16)])
    export(onnx_model, tmp_path / 'half.onnx', 'fp16')
    before = sorted(tmp_path.iterdir())
    for source, precision, calibration, words in (
            (checkpoint, 'int4', None, 'not one of fp32, fp16, int8'),
            (checkpoint, 'int8', None, 'requires real thermal frames'),
            (checkpoint, 'fp16', frames, 'only for int8, not for fp16'),
            (tmp_path / 'half.onnx', 'int8', frames, 'already in fp16'),
            (rgb_teacher, 'fp16', None, 'takes RGB images')):
        with pytest.raises(UserError, match=words):
            export(source, tmp_path / 'm.onnx', precision, calibration)
    with pytest.raises(UserError, match='is the source itself'):
        export(onnx_model, onnx_model, 'fp16')
    with pytest.raises(UserError, match='export the checkpoint'):
        export(onnx_model, tmp_path / 'm.onnx', dynamic_batch=True)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize('there', [False, True])
def test_a_killed_export_leaves_the_old_pair_or_the_new_one(
    tmp_path: Path, onnx_model: Path, killed: Callable[..., bool], there: bool,
) -> None:
    new, output = tmp_path / 'new.onnx', tmp_path / 'out' / 'model.onnx'
    model = onnx.load(onnx_model)
    model.doc_string = 'another'
    onnx.save(model, new)
    old_card = load_card(onnx_model, DetectionCard)
    new_card = replace(old_card, name='new', onnx_sha256=file_sha256(new))
    save_card(new_card, new)
    for renames in range(4):  # of the card into the folder, of the folder, of both files
        if there:
            export(onnx_model, output)
        assert killed(lambda: export(new, output), renames)
        if renames < 2 and not there:
            with pytest.raises(UserError, match='does not exist'):
                load_card(output, DetectionCard)
        else:
            assert load_card(output, DetectionCard) == (new_card if renames > 1 else old_card)
        export(new, output)
        assert load_card(output, DetectionCard) == new_card
        assert sorted(p.name for p in output.parent.iterdir()) == ['model.json', 'model.onnx']
        shutil.rmtree(output.parent)
    assert not killed(lambda: export(new, output), 4)
