"""Metrics as functions of tensors, the scorers of each layout, and how a score is told."""
