"""Meshes as conditions: read by trimesh, rendered to depth or normals by a z-buffer of our own."""

import json
import math
import struct
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from freectl.errors import InputError
from freectl.files.paths import check_file

_GLTF, _GLTF_JSON = 0x46546C67, 0x4E4F534A
SUFFIXES = (".obj", ".glb", ".ply")
MARGIN = 0.9
"""Share of the frame that the mesh fills."""
FAR_GREY = 64 / 255
"""Depth value of the farthest visible point; the nearest is 1, the background 0."""
CREASE = math.cos(math.radians(40))
"""Faces that meet at a sharper angle than twice this are shaded flat: a cube keeps its edges, a ball is round."""
CHUNK = 2_000_000
"""Pixels of triangles that are looked at together."""
TIE = 1e-6
"""Depths closer than this (px) are equal."""


@dataclass(frozen=True)
class Mesh:
    """Triangles (F, 3, 3), and the unit normals (F, 3, 3) at their corners; y is up."""

    triangles: np.ndarray
    normals: np.ndarray


@dataclass(frozen=True)
class Surface:
    """What is seen: `near` (H, W) px towards the viewer, -inf where nothing is; `normals` (H, W, 3) in view space."""

    near: np.ndarray
    normals: np.ndarray


def is_mesh(path: Any) -> bool:
    """Whether a condition's file name is a mesh's."""
    return isinstance(path, str | Path) and Path(path).suffix.lower() in SUFFIXES


def load_mesh(path: str, option: str = "--condition") -> Mesh:
    """Read a mesh with all its parts; materials and textures are ignored.

    Raises:
        InputError: trimesh is not installed; missing, damaged or empty file.
    """
    if find_spec("trimesh") is None:
        allowed = "a picture, or a mesh after: pip install 'freectl[mesh]'"
        raise InputError(option, f"'{path}', a mesh, for which trimesh is not installed", allowed)
    check_file(path, option, "an existing mesh file")
    import trimesh

    kind = Path(path).suffix.lower()[1:]
    try:
        data = Path(path).read_bytes()
        # textures are pictures in whatever format their author likes, and Pillow starts programs for some
        source = untextured(data) if kind == "glb" else data
        extra = {} if kind == "glb" else {"skip_materials": True}
        mesh = trimesh.load_mesh(BytesIO(source), file_type=kind, **extra)
        triangles, faces = np.asarray(mesh.triangles, dtype=np.float64), np.asarray(mesh.face_normals)
        corners = np.asarray(mesh.vertex_normals)[np.asarray(mesh.faces)]
    except Exception as error:  # readers raise whatever the damaged bytes lead them to
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(option, f"'{path}', not readable as a mesh ({reason})", ", ".join(SUFFIXES)) from error
    if not len(triangles) or not np.isfinite(triangles).all():
        raise InputError(option, f"'{path}', a mesh without faces or with coordinates that are not numbers", "a mesh")
    smooth = np.einsum("fcx,fx->fc", corners, faces) > CREASE
    return Mesh(triangles, np.where(smooth[..., None], corners, faces[:, None]))


def untextured(data: bytes) -> bytes:
    """A binary glTF file without its materials, textures and pictures.

    Raises:
        ValueError: no glTF 2 file, or its JSON is damaged. struct.error: it is cut off.
    """
    magic, version, _ = struct.unpack_from("<III", data)
    length, kind = struct.unpack_from("<II", data, 12)
    if (magic, version, kind) != (_GLTF, 2, _GLTF_JSON):
        raise ValueError("no glTF 2 file")
    tree = json.loads(data[20 : 20 + length])
    for name in ("images", "textures", "materials", "samplers"):
        tree.pop(name, None)
    for mesh in tree.get("meshes", []):
        for primitive in mesh.get("primitives", []):
            primitive.pop("material", None)
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + length :]
    head = struct.pack("<III", _GLTF, 2, 20 + len(text) + len(rest))
    return head + struct.pack("<II", len(text), _GLTF_JSON) + text + rest


def parse_view(text: str) -> tuple[float, float]:
    """`azimuth,elevation` in degrees: from +z at 0,0; azimuth turns towards +x, elevation up.

    Raises:
        InputError: not two numbers, or elevation beyond 90.
    """
    try:
        azimuth, elevation = (float(part) for part in text.split(","))
        if not (math.isfinite(azimuth) and abs(elevation) <= 90):
            raise ValueError
    except ValueError:
        raise InputError("--view", f"'{text}'", "azimuth,elevation in degrees, such as 30,20") from None
    return azimuth, elevation


def render(mesh: Mesh, size: tuple[int, int], view: tuple[float, float]) -> Surface:
    """Orthographic view of the mesh, filling `MARGIN` of a frame of `size` (width, height) px."""
    azimuth, elevation = (math.radians(angle) for angle in view)
    right = np.array([math.cos(azimuth), 0, -math.sin(azimuth)])
    towards = np.array(
        [math.sin(azimuth) * math.cos(elevation), math.sin(elevation), math.cos(azimuth) * math.cos(elevation)]
    )
    axes = np.stack([right, np.cross(towards, right), towards], 1)
    points = mesh.triangles @ axes
    low, high = points.min((0, 1)), points.max((0, 1))
    extent = np.maximum(high - low, 1e-12)
    scale = MARGIN * min(size[0] / extent[0], size[1] / extent[1])
    points = (points - (low + high) / 2) * scale
    points[..., 0] += size[0] / 2
    points[..., 1] = size[1] / 2 - points[..., 1]
    return _rasterise(points, mesh.normals @ axes, size)


def _rasterise(points: np.ndarray, normals: np.ndarray, size: tuple[int, int]) -> Surface:
    """Z-buffer over pixel centres; `points` (F, 3, 3) are (x, y) px and z px towards the viewer."""
    width, height = size
    near, seen = np.full(width * height, -np.inf), np.zeros((width * height, 3))
    limits = np.array([width, height])
    first = np.clip(np.ceil(points[..., :2].min(1) - 0.5), 0, limits).astype(np.int64)
    last = np.clip(np.floor(points[..., :2].max(1) - 0.5), -1, limits - 1).astype(np.int64)
    columns, rows = np.maximum(last - first + 1, 0).T
    counts = columns * rows
    # at an outline a hidden face ends at the depth of the visible one: that one is drawn later and stays
    facing = np.cross(points[:, 1, :2] - points[:, 0, :2], points[:, 2, :2] - points[:, 0, :2]) < 0
    order = np.flatnonzero(counts)
    order = order[np.argsort(facing[order], kind="stable")]
    for part in np.split(order, np.flatnonzero(np.diff(np.cumsum(counts[order]) // CHUNK)) + 1):
        face = np.repeat(part, counts[part])
        place = np.arange(len(face)) - np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
        x, y = first[face, 0] + place % columns[face], first[face, 1] + place // columns[face]
        weights = _barycentric(points[face, :, :2], x + 0.5, y + 0.5)
        inside = (weights >= -1e-9).all(1)
        face, weights, pixel = face[inside], weights[inside], (y * width + x)[inside]
        depth = (weights * points[face, :, 2]).sum(1)
        np.maximum.at(near, pixel, depth)
        front = depth >= near[pixel] - TIE
        seen[pixel[front]] = np.einsum("nc,ncx->nx", weights[front], normals[face[front]])
    seen[seen[:, 2] < 0] *= -1  # a surface seen from behind faces the viewer all the same
    seen /= np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-12)
    return Surface(near.reshape(height, width), seen.reshape(height, width, 3))


def _barycentric(corners: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights (N, 3) of the corners (N, 3, 2) at the points (x, y); NaN for triangles seen edge-on."""
    (ax, ay), (bx, by), (cx, cy) = (corners[:, i].T for i in range(3))
    with np.errstate(divide="ignore", invalid="ignore"):
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        b = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
        c = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
        return np.stack([1 - b - c, b, c], 1)


def picture(surface: Surface, kind: str) -> Image.Image:
    """The surface as a condition picture.

    Args:
        kind: "depth" (near is bright, background black) or "normal" (red right, green up, blue towards the viewer;
            the background faces the viewer).
    """
    from freectl.preprocess.arrays import to_picture

    hit = np.isfinite(surface.near)
    if kind == "normal":
        return to_picture((np.where(hit[..., None], surface.normals, [0.0, 0.0, 1.0]) + 1) / 2)
    low, high = surface.near[hit].min(initial=np.inf), surface.near[hit].max(initial=-np.inf)
    share = (np.where(hit, surface.near, high) - low) / max(high - low, 1e-9)
    grey = np.where(hit, FAR_GREY + (1 - FAR_GREY) * share, 0)
    # a plane across the view is all at one depth: near
    return to_picture(np.where(hit, 1.0, 0.0) if high - low < 1e-9 else grey)
