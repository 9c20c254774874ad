"""Tests of the evaluation need the packages of the `eval` extra."""
