"""Folders of pictures in, batches out."""
