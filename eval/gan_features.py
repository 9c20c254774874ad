"""`python -m eval.gan_features`: see `eval.gans.features`."""

from eval.command import guarded_main
from eval.gans.features import main

if __name__ == "__main__":
    guarded_main(main)
