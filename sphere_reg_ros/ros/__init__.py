"""ROS 2 around the core: nodes that are thin, one module that converts messages, bags without rclpy."""
