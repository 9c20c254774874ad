"""`python -m eval.gan_features`: see `eval.gans.features`."""

from eval.gans.features import main

if __name__ == "__main__":
    main()
