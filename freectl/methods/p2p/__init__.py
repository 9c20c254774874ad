"""Prompt-to-prompt (arXiv 2208.01626) and null-text inversion (arXiv 2211.09794)."""
