"""`python -m shared.cli`: the command `etl` if it is not on the PATH."""

from shared.cli import main

main()
