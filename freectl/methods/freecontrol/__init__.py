"""FreeControl (arXiv 2312.07536)."""
