"""`python -m gan_baselines`, which `accelerate launch -m gan_baselines` needs."""

from gan_baselines.cli import main

if __name__ == "__main__":
    main()
