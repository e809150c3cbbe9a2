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

"""Words of messages: numbers with their nouns, and times."""


def counted(number: int, one: str, many: str = '') -> str:
    """Return a number with its noun, for example 1 frame, 2 frames, 3 boxes (one, many)."""
    return f'{number} {one if number == 1 else many or one + "s"}'


def duration(seconds: float) -> str:
    """Return a time in the two units that matter, for example 2 h 5 min."""
    if seconds < 100:
        return f'{seconds:.0f} s'
    hours, minutes = divmod(round(seconds / 60), 60)
    return f'{hours} h {minutes} min' if hours else f'{minutes} min'
