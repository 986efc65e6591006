"""Flyte tasks: one a file, thin typed shells around `siqvl`."""
