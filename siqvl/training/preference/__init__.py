"""Preference optimisation: its trainer, its losses, and the reference they compare with."""
