"""`python -m eval.gan_sheet`: see `eval.gans.sheet`."""

from eval.command import guarded
from eval.gans.sheet import main

if __name__ == "__main__":
    guarded(main)
