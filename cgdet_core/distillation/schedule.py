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

"""The weight of a training-only loss over the epochs."""

from pydantic import BaseModel, ConfigDict, Field


class ScheduledLoss(BaseModel):
    """The settings that RCS and CMG share."""

    model_config = ConfigDict(extra='forbid', frozen=True, allow_inf_nan=False)
    weight: float = Field(1.0, ge=0)  # lambda
    warmup_epochs: float = Field(1.0, ge=0)  # the weight grows linearly over these
    stop_epoch: int | None = Field(None, gt=0)  # the weight is 0 from this epoch

    def weight_at(self, epoch: float) -> float:
        """Return lambda: a linear warm-up, then constant, then 0 from stop_epoch."""
        if self.stop_epoch is not None and epoch >= self.stop_epoch:
            return 0.0
        return self.weight * (min(1.0, epoch / self.warmup_epochs) if self.warmup_epochs else 1)
