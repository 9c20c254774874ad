"""The path, the one sampling loop, inversion and taps: knows networks, no model family and no method."""
