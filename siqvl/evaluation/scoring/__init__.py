"""Answers -> scores with their intervals."""
