"""`python -m eval.generators`: see `eval.showcase.generators`."""

from eval.command import guarded
from eval.showcase.generators import main

if __name__ == "__main__":
    guarded(main)
