"""Benchmarks: cases with what their results are measured against, and the readers of all layouts."""
