"""`python -m darkroom` is the command line."""

from darkroom.cli import main
from darkroom.training.launch import hush_followers

hush_followers()
main()
