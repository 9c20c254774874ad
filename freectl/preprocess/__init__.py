"""Condition pictures made from photographs: edges, depth, normals, segmentation, pose; and renders of meshes."""

from freectl.preprocess.registry import KINDS, Apply, Kind, Preprocess, parse

__all__ = ["KINDS", "Apply", "Kind", "Preprocess", "parse"]
