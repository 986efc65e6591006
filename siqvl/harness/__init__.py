"""Checkpoints inside of other people's evaluation harnesses: lmms-eval, and what others can use."""
