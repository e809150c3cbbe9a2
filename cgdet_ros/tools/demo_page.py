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

"""The pictures of a demo: a video, a contact sheet, and a page that explains them."""

from collections.abc import Callable, Iterator
from html import escape
from math import isqrt
from pathlib import Path
from typing import Any

from cgdet_core.data.coco import ImageRecord
from cgdet_core.data.show import evenly
from cgdet_core.data.sources import Frame
from cgdet_core.data.video import open_video
from cgdet_core.runtime.detection.card import DetectionCard
from cgdet_core.runtime.detection.drawing import draw_detections
from cgdet_core.runtime.files import share_file, SHIPPED_TRACKER, write_atomically
from cgdet_core.runtime.imaging.drawing import contact_sheet, save_picture
from cgdet_core.runtime.tracking.drawing import draw_target
from cgdet_core.runtime.tracking.model import TrackingModel
from cgdet_core.runtime.tracking.tracker import Tracker
from cgdet_ros.tools.collector import Collected
from cgdet_ros.tools.demo_input import Target
import numpy as np
from numpy.typing import NDArray

VIDEO, SHEET, PAGE = 'detections.mp4', 'contact_sheet.png', 'index.html'
TILES = 12
# What the figures mean, by their keys in report.json.
MEANINGS = {
    'frames sent': 'images published on the topic image_raw',
    'frames processed': 'images that the node published detections for',
    'frames dropped': 'images without an answer; a file or folder is played as fast as the node '
                      'answers, so there are some only if images cannot be decoded',
    'headers equal': 'every detection has the stamp and frame_id of its image',
    'frames/s': 'images that were played and answered in a second',
    'image to detections p50 ms': 'from publishing an image to receiving its detections, in half '
                                  'of all cases at most',
    'image to detections p95 ms': 'the same in 95 of 100 cases',
    'node: infer p50 ms': 'time in the network alone',
    'node: infer p95 ms': 'the same in 95 of 100 cases',
    'node: overhead p50 ms': "the node's time before and after the network",
    'node: backend': 'what computes the network',
    'AP': 'average precision of the boxes, mean over IoU 0.5 to 0.95; 1 is perfect',
    'AP50': 'the same where a box counts that overlaps its object by half (IoU 0.5)',
}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem;
       color: #1b1f24; background: #fff; }
h1 { font-size: 1.6rem; margin: 0.5rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 0.5rem; }
video, img { width: 100%; height: auto; display: block; background: #000; border-radius: 6px; }
video { max-width: 48rem; max-height: 85vh; }
table { border-collapse: collapse; width: 100%; }
td { border-top: 1px solid #d8dee4; padding: 0.4rem 0.6rem 0.4rem 0; vertical-align: top; }
td:first-child { white-space: nowrap; }
td:nth-child(2) { font-weight: 600; }
td:nth-child(3), p.note { color: #57606a; }
pre { background: #f3f5f7; padding: 0.7rem; border-radius: 6px; overflow-x: auto; }
@media (max-width: 600px) {
  tr { display: grid; grid-template-columns: 1fr auto; column-gap: 1rem;
       border-top: 1px solid #d8dee4; }
  td { border: 0; padding: 0.2rem 0; } td:nth-child(3) { grid-column: 1 / 3; font-size: 0.9rem; }
  td:nth-child(2) { text-align: right; }
}
"""
NEXT = (
    ('Your own pictures', 'make demo IMAGES=my_folder',
     'Image files of 8 or 16 bits, a video, or a COCO file. Without ROS: <code>cgdet detect '
     'my_folder</code>.'),
    ('Your own recording', 'make demo BAG=my_bag',
     'A ROS 2 bag; with TOPIC= if it has several image topics.'),
    ('Your own classes',
     'make setup\n. .venv/bin/ros_env.sh\ncgdet train config/train/fine_tune.yaml '
     'data.train=train.json data.val=val.json',
     'Fine-tune the shipped model on a few hundred labeled frames of your camera. '
     'docs/tutorials/train_on_your_drives.md continues from here.'),
    ('Your own robot',
     '. .venv/bin/ros_env.sh\npython -m cgdet_ros.detector_node --ros-args -r '
     'image_raw:=/thermal/image_raw',
     'The node alone: it subscribes to a camera and publishes vision_msgs/Detection2DArray. '
     'docs/tutorials/your_camera.md continues from here.'),
)


def write_pictures(frames: Iterator[Frame], run: Collected, truth: dict[int, ImageRecord],
                   card: DetectionCard, rate: float, output: Path,
                   progress: Callable[[], None] = lambda: None,
                   start: Target | None = None) -> None:
    """
    Write a video of `rate` frames/s of all processed frames and a contact sheet of twelve.

    start: number of the frame and box (4,) of what the shipped tracker follows in the pictures.
    """
    stamps = [stamp for stamp in run.sent if stamp in run.received]
    left = set(run.received)
    chosen = set(evenly(stamps, TILES))
    sheet: list[NDArray[np.uint8]] = []
    tracker = None if start is None else Tracker(TrackingModel.load(
        share_file(SHIPPED_TRACKER), backend='onnxruntime'))  # an engine may take minutes to build
    with open_video(output / VIDEO, rate) as write:
        for number, frame in enumerate(frames):
            progress()
            target = None
            if tracker is not None and start is not None and number >= start[0]:
                seconds = number / rate
                target = (tracker.follow(frame.pixels, seconds) if number > start[0] else
                          tracker.start(frame.pixels, start[1], seconds))
            stamp = frame.stamp_ns
            if stamp not in left or stamp is None:
                continue
            left.remove(stamp)  # the first of repeated stamps
            boxes = truth[stamp].boxes if stamp in truth else None
            picture = draw_detections(frame.pixels, run.received[stamp].above(card.thresholds),
                                      card, boxes)
            if target is not None:
                draw_target(picture, target)
            write(picture)
            if stamp in chosen:
                sheet.append(picture)
    columns = min(4, isqrt(len(sheet) - 1) + 1)  # few are larger
    save_picture(output / SHEET, contact_sheet(sheet, columns))


def write_page(output: Path, source: str, model: str, sentences: list[str],
               report: dict[str, Any], truth: bool, drawn: bool,
               followed: bool = False) -> None:
    """Write index.html: video, contact sheet, figures with their meaning, and what to do next."""
    legend = 'Colored boxes are detections, with class and score.'
    if truth:
        legend += (' Dashed boxes in black and white are the truth: what a perfect detector would '
                   'find.')
    if followed:
        legend += (" One person is also followed by the package's tracker, from the box that was "
                   'chosen in one of the first frames: green while tracked, yellow while '
                   'uncertain, orange while lost and searched for.')
    rows = ''.join(
        f'<tr><td>{escape(key)}</td><td>{escape(as_text(value))}</td>'
        f'<td>{escape(meaning(key))}</td></tr>' for key, value in report.items())
    warning = ('<p class="note">AP in a drawn street shows that everything works together. It is '
               'not an estimate for your camera.</p>' if drawn else '')
    steps = ''.join(f'<h3>{title}</h3><pre>{escape(command)}</pre><p>{text}</p>'
                    for title, command, text in NEXT)
    write_atomically(output / PAGE, f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>cgdet demo</title><style>{STYLE}</style></head><body>
<h1>Objects in thermal images</h1>
<p>Played over ROS 2 into the detector node: {escape(source)}. Model: {escape(model)}.
{escape(' '.join(sentences))}</p>
<video src="{VIDEO}" controls autoplay muted loop playsinline></video>
<p class="note">{legend}</p>
<h2>Some of the frames</h2>
<a href="{SHEET}"><img src="{SHEET}" alt="frames with their detections"></a>
<h2>Figures</h2>
<table>{rows}</table>{warning}
<h2>What to do next</h2>
{steps}
</body></html>
""".encode())


def as_text(value: object) -> str:
    """Return a figure as it is shown to people."""
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, float):
        return f'{value:.1f}' if value >= 2 else f'{value:.3f}'
    return str(value)


def meaning(key: str) -> str:
    """Return what a figure of the report means."""
    if key.startswith('AP50 '):
        return f'AP50 of the class {key[5:]} alone'
    return MEANINGS.get(key, '')
