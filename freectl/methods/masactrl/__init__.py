"""MasaCtrl (arXiv 2304.08465)."""
