"""How the embedded weights are made: `freectl mini train`."""
