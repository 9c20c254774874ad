"""Methods on a benchmark: what is asked for, planned, and carried out."""
