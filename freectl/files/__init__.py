"""Everything that touches a disk: pictures, cache, records, and what the environment is."""
