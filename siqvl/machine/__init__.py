"""What this machine leaves to a process, told without torch."""
