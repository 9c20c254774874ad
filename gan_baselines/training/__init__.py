"""The trainer and what it keeps: checkpoints, averages, logs, pages."""
