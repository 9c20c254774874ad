"""Many edits: rows of a manifest to pictures and one JSON line each, resumable, on one machine or on a cluster."""
