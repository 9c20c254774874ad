"""Seconds a training step takes, beside a step written straight from the papers' description."""
