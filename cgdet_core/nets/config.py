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

"""The settings of trunk and neck; without torch, so that a recipe is checked at once."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_serializer,
    model_validator,
    ValidationInfo,
)

# The names of what `pyramid` builds.
TRUNKS = ['csp', 'efficientnet_lite0', 'shufflenet_v2', 'mobilenet_v3_large',
          'mobilenet_v3_small', 'regnet_y_400mf', 'resnet18', 'shufflenet_v2_x1_0']
NECKS = ['pan', 'ghost']
CSP_SIZES = {'channels', 'depths'}
Width = Annotated[int, Field(ge=2, multiple_of=2)]


class PyramidConfig(BaseModel):
    """The sizes of trunk and neck."""

    model_config = ConfigDict(extra='forbid', frozen=True)
    added: ClassVar[tuple[str, ...]] = ('trunk', 'neck')  # keys that older runs lack

    in_channels: Literal[1, 3] = 1  # 3: RGB images, for a teacher
    trunk: str = 'csp'  # csp, shufflenet_v2, efficientnet_lite0, or one of torchvision's
    neck: str = 'pan'  # pan or ghost
    channels: tuple[Width, Width, Width, Width] = (32, 64, 128, 256)  # of csp
    depths: tuple[int, int, int, int] = (1, 2, 2, 2)  # of csp
    neck_channels: Width = 96  # of every level

    @field_validator('trunk', 'neck')
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        known = TRUNKS if info.field_name == 'trunk' else NECKS
        if value not in known:
            raise ValueError(f'must be one of {", ".join(known)}')
        return value

    @model_validator(mode='after')
    def _sizes_of_csp(self) -> 'PyramidConfig':
        if self.trunk != 'csp' and self.model_fields_set & CSP_SIZES:
            raise ValueError(f'channels and depths are the sizes of csp; the trunk {self.trunk} '
                             'has its own, remove them')
        return self

    @model_serializer(mode='wrap')
    def _only_what_counts(self, serialize: Callable[[Any], Any]) -> dict[str, Any]:
        """Omit default parts, which older runs lack, and the sizes of a trunk that is not used."""
        values = serialize(self)
        if self.trunk != 'csp':
            values = {k: v for k, v in values.items() if k not in CSP_SIZES}
        fields = type(self).model_fields
        return {k: v for k, v in values.items()
                if k not in self.added or v != fields[k].default}
