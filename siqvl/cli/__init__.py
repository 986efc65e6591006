"""The command `siqvl`: one module a group of commands."""
