"""`python -m siqvl …`: the same as the command `siqvl …`."""

from siqvl.cli.main import main

main()
