"""Cached features of the frozen vision tower: how they are computed and looked up."""
