"""`python -m eval.gan_tables`: see `eval.gans.tables`."""

from eval.command import guarded
from eval.gans.tables import main

if __name__ == "__main__":
    guarded(main)
