"""A results folder: written line by line, read, and summarised."""
