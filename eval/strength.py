"""`python -m eval.strength`: see `eval.showcase.strength`."""

from eval.command import guarded
from eval.showcase.strength import main

if __name__ == "__main__":
    guarded(main)
