"""FreeControl's meaning-space: features, semantic bases, energies."""
