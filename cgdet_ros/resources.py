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

"""The DDS profile of the package, for its programs."""

import os

from cgdet_core.runtime.files import share_file


def profile_environment() -> dict[str, str]:
    """Return the variables to set for the DDS profile: the user's, or the shipped one."""
    from cgdet_ros.doctor.transport import profile_variables, VARIABLES  # not used by the node

    own = [os.environ[name] for name in VARIABLES if os.environ.get(name)]
    profile = own[0] if own else str(share_file('config/fastdds.xml'))
    return {name: profile for name in profile_variables(os.environ) if name not in os.environ}


def use_transport_profile() -> None:
    """Set the DDS profile, if unset, for this process and its children, before rclpy.init."""
    os.environ.update(profile_environment())
