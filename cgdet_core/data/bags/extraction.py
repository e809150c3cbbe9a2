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

"""The chosen thermal frames of a bag, and the RGB images of the same time, registered to them."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cgdet_core.data.bags import pairing
from cgdet_core.data.bags.io import color_picture, whole
from cgdet_core.data.bags.pairing import BagPlan, Choice
from cgdet_core.data.bags.registration import Registration
from cgdet_core.data.sources import Frame
from cgdet_core.runtime.imaging.drawing import save_frame
from cgdet_core.runtime.imaging.message import view_message
import cv2
from numpy.typing import NDArray


def thermal_frames(plan: BagPlan) -> Iterator[Frame]:
    """Yield the chosen thermal frames of a bag."""
    stamps = set(plan.stamps.tolist())
    for stamp, message in pairing.messages(plan.path, plan.thermal_topic, stamps):
        yield Frame(f'{plan.name}_{stamp}.png', partial(_view, message),
                    f'{plan.thermal_topic} at {stamp} ns', stamp)


def write_rgb(
    folder: Path, plan: BagPlan, choice: Choice, images: dict[int, dict[str, Any]],
    unreadable: list[str], progress: Callable[[int], None],
) -> str | None:
    """
    Write the RGB images of frames, and their names into the frames' entries of the set.

    images: these entries, by the RGB stamp. Returns how the images were registered; those that
    cannot be read are added to `unreadable`.
    """
    registrations: dict[tuple[int, ...], Registration | None] = {}  # by both sizes
    for stamp, message in pairing.messages(plan.path, plan.rgb_topic, set(images)):
        progress(1)
        try:
            picture = color_picture(whole(message))
        except (ValueError, cv2.error) as error:
            unreadable.append(f'{plan.rgb_topic} at {stamp} ns: {error}')
            continue
        image = images[stamp]
        size = image['width'], image['height']
        sizes = (*size, *picture.shape)
        if sizes not in registrations:
            registrations[sizes] = pairing.open_registration(plan, choice, size, picture)
        registration = registrations[sizes]
        if registration is not None:
            picture = registration.apply(picture)
        name = f'rgb/{Path(image["file_name"]).stem}{".jpg" if choice.jpeg else ".png"}'
        save_frame(folder / name, picture)
        image |= {'rgb_file_name': name, 'rgb_stamp_ns': stamp}
    return next((r.description for r in registrations.values() if r is not None), None)


def _view(message: Any) -> NDArray[Any]:
    return view_message(whole(message))
