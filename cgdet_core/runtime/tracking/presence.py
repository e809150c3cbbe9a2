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

"""Whether the target is where it is looked for, from what many frames say of it."""

import numpy as np

LEAVES_S, RETURNS_S = 20.0, 5.0  # mean times until a target is hidden, and until it is shown again
FRAME_S = 0.1  # frames that follow each other faster say the same thing, and count less
MOST, LEAST = 3.0, -3.0  # logits
USUAL = 0.8  # logit of a look at a target that was just chosen
USUAL_S = 1.0  # time in which the usual logit follows to 1 - 1/e
LESS = 1.2  # how much less than usual a look at the target may say
LOWEST, HIGHEST = -1.0, 0.0  # what is asked of any target is between them


class Presence:
    """
    A Bayes filter of two states, present and absent, over real time.

    logit: of the probability that the target is where it was looked for.
    """

    def __init__(self) -> None:
        self.logit, self._usual = MOST, USUAL

    @property
    def probability(self) -> float:
        return probability(self.logit)

    def evidence(self, look: float) -> float:
        """
        Return what the logit of a look says, above 0 for and below 0 against the target.

        Some targets look less like themselves than others, so what they usually do counts.
        """
        return look - min(max(self._usual - LESS, LOWEST), HIGHEST)

    def add(self, evidence: float, seconds: float) -> None:
        """Take a frame into account, the given time after the one before."""
        forgotten = 1 - float(np.exp(-seconds * (1 / LEAVES_S + 1 / RETURNS_S)))
        usually = LEAVES_S / (LEAVES_S + RETURNS_S)
        here = self.probability + (usually - self.probability) * forgotten
        weight = min(1.0, seconds / FRAME_S)
        self.logit = min(max(logit(here) + weight * evidence, LEAST), MOST)

    def learn(self, look: float, seconds: float) -> None:
        """Let the usual logit follow that of a look at the target."""
        self._usual += (1 - float(np.exp(-seconds / USUAL_S))) * (look - self._usual)


def logit(probability: float) -> float:
    clipped = min(max(probability, 1e-6), 1 - 1e-6)
    return float(np.log(clipped / (1 - clipped)))


def probability(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))
