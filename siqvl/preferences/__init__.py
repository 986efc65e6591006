"""Preference pairs that a checkpoint writes itself: its right answers against its wrong ones."""
