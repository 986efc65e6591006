"""Data sets as they are published on the hub: one adapter a file."""
