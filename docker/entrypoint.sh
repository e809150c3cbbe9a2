#!/bin/bash
# Run a command in the environment of the workspace.
set -e
source "/opt/ros/${ROS_DISTRO}/setup.bash"
source /ws/install/setup.bash
exec "$@"
