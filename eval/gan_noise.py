"""`python -m eval.gan_noise`: see `eval.gans.noise`."""

from eval.gans.noise import main

if __name__ == "__main__":
    main()
