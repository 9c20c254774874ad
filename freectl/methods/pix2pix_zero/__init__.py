"""pix2pix-zero (arXiv 2302.03027)."""
