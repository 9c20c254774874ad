"""`python -m eval.gan_noise`: see `eval.gans.noise`."""

from eval.command import guarded_main
from eval.gans.noise import main

if __name__ == "__main__":
    guarded_main(main)
