"""`python -m shared.cli`, where the command `etl` is not on the PATH."""

from shared.cli import main

main()
