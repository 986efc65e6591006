"""Cached features of the frozen vision tower: how they are computed, kept and looked up."""
