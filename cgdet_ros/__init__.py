"""The ROS 2 node around the thermal detector, and tools that speak ROS."""
