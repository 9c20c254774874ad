"""Metrics, benchmark and reports; run from a checkout."""
