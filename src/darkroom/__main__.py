"""`python -m darkroom` is the command line."""

from darkroom.cli import main

main()
