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

"""`cgdet data to-yolo`."""

from pathlib import Path
from typing import Annotated

from cgdet_core.cli.common import Complaints, counting, folder_option, Images, say
from cgdet_core.errors import UserError
from cgdet_core.words import counted
import typer


def data_to_yolo(
    path: Annotated[Path, typer.Argument(metavar='COCO.json', help='The set, or its train part.')],
    output: Annotated[Path, folder_option('Folder to create.')],
    val: Annotated[Path | None, typer.Option(
        metavar='COCO.json', help='Its validation part.')] = None,
    images: Images = None,
) -> None:
    """
    Write a COCO set as YOLO text labels, with copies of its images, for tools that require them.

    The images keep their depth. YOLO knows neither ignore regions nor RGB images of a pair: they
    are left out, and reported. So is an image that cannot be read; the exit status is then 1.
    """
    from cgdet_core.data.coco import counts_text, load_coco
    from cgdet_core.data.to_yolo import write_yolo

    sets = {'train': load_coco(path, images)}
    if val is not None:
        sets['val'] = load_coco(val, images, sets['train'].classes)
    for coco in sets.values():
        coco.warn_of_prelabels()
        if coco.others:
            say(f'{coco.path}: boxes of classes that {path} does not list are left out: '
                f'{counts_text(coco.others)}', 'yellow')
        if stated := {word for record in coco.images for word in record.stated().values()}:
            say(f'{coco.path}: unit and polarity of frames ({", ".join(sorted(stated))}) are left '
                'out, as YOLO has no entry for them; "cgdet data convert" sets them again.',
                'yellow')
    total, failed = sum(len(coco.images) for coco in sets.values()), Complaints()
    with counting('copying', total) as progress:
        numbers = write_yolo(sets, output, failed, progress)
    for split, n in numbers.items():
        say(f'{output}/images/{split}: {counted(n["frames"], "frame")}, '
            f'{counted(n["boxes"], "box", "boxes")}')
    ignored, rgb = (sum(n[what] for n in numbers.values()) for what in ('ignored', 'rgb'))
    if ignored:
        say(f'{counted(ignored, "ignore region")} left out: what is in them counts as background '
            'for a YOLO trainer.', 'yellow')
    if rgb:
        say(f'{counted(rgb, "RGB image")} left out.', 'yellow')
    say(f'{output}/data.yaml names the classes: {", ".join(sets["train"].classes)}')
    if failed:
        raise UserError(f'{len(failed)} of {total} images could not be read and are left out.')
