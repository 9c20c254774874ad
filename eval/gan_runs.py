"""`python -m eval.gan_runs`: see `eval.gans.runs`."""

from eval.gans.runs import main

if __name__ == "__main__":
    main()
