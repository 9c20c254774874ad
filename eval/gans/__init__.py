"""Trained generators of `gan_baselines`: as a method beside others, and their own studies."""

GAN = "gan"
"""Of the method, in `--methods` and in result lines."""
