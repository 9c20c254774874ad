"""`python -m eval.gan_runs`: see `eval.gans.runs`."""

from eval.command import guarded_main
from eval.gans.runs import main

if __name__ == "__main__":
    guarded_main(main)
