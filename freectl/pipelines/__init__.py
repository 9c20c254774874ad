"""Diffusers pipelines of this package, and how any checkpoint becomes one."""
