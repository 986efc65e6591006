"""What training gives for its time: telemetry, operations, progress."""
