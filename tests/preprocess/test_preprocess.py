"""Preprocessors against naive loops, closed forms and the models called by hand; meshes against geometry."""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import trimesh
from PIL import Image

from freectl.errors import FreectlError, InputError
from freectl.preprocess import KINDS, mesh, parse
from freectl.preprocess.normal import RELIEF, normals
from freectl.preprocess.pose import BONES, draw
from freectl.preprocess.segmentation import palette

SIDE = 48


def apply(text: str, image: Image.Image) -> np.ndarray:
    chosen = parse(text)
    chosen.check()
    return np.asarray(chosen.prepare()(image))


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((40, 32), Image.Resampling.BICUBIC)


# Names


def test_alias_value_and_default():
    assert parse("scribble").kind is parse("sketch").kind is KINDS["sketch"]
    assert parse("Canny").values == {"low": "65", "high": "130"}
    assert parse("canny=,150").values == {"low": "65", "high": "150"}
    assert parse("depth=some/model").values == {"model": "some/model"}
    assert set(KINDS) == {"none", "canny", "sketch", "depth", "normal", "segmentation", "pose"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("cany", "did you mean 'canny'"),
        ("", "unknown name"),
        ("canny=1,2,3", "canny[=LOW,HIGH]"),
        ("canny=high", "'high'"),
        ("canny=0", "0.001 to"),
        ("canny=nan", "'nan'"),
        ("canny=200,100", "LOW at most HIGH"),
        ("sketch=30,30", "LOW below HIGH"),
        ("none=1", "none"),
        ("depth=no/such/folder", "hub id"),
        ("depth=model.bin", "hub id"),
        ("depth=./none", "hub id"),
        ("normal=a/b,1.5", "0 to 1"),
        ("pose=a/b,c", "detector 'c'"),
    ],
)
def test_what_is_refused(text, named):
    with pytest.raises(InputError, match="--preprocess") as caught:
        parse(text).check()
    assert named in str(caught.value)


def test_none_is_the_identity(photo):
    assert parse("none").prepare()(photo) is photo


@pytest.mark.parametrize(("name", "package"), [("canny", "kornia"), ("sketch", "kornia"), ("pose", "scipy")])
def test_a_missing_extra_is_named_with_the_command(monkeypatch, name, package):
    monkeypatch.setattr("freectl.preprocess.registry.find_spec", lambda module: None)
    with pytest.raises(InputError, match=package) as caught:
        parse(name).check()
    assert "pip install 'freectl[preprocess]'" in str(caught.value)
    parse("none").check()


@pytest.mark.parametrize("name", ["depth", "normal", "segmentation", "pose"])
def test_weights_that_are_not_here_are_named_with_the_command(name):
    chosen = parse(name)
    chosen.check()
    with pytest.raises(FreectlError, match="hf download") as caught:
        chosen.prepare()
    assert "\n" not in str(caught.value)
    assert chosen.values["detector" if name == "pose" else "model"] in str(caught.value)
    assert f"--preprocess {name}={',' if name == 'pose' else ''}DIR" in str(caught.value)
    assert not isinstance(caught.value, InputError)


# Lines


def step_picture(left: int, right: int) -> Image.Image:
    pixels = np.full((16, 16, 3), left, dtype=np.uint8)
    pixels[:, 8:] = right
    return Image.fromarray(pixels)


def blurred_step_gradient(height: float) -> float:
    """Largest Sobel value of a step blurred with five taps of a Gaussian of sigma 1, by a loop."""
    taps = [math.exp(-(i**2) / 2) for i in range(-2, 3)]
    step = [0.0] * 10 + [height] * 10
    smooth = [sum(t * step[x + i - 2] for i, t in enumerate(taps)) / sum(taps) for x in range(2, 18)]
    return max(4 * (smooth[x + 1] - smooth[x - 1]) for x in range(1, 15))


def test_canny_draws_a_thin_dark_line_on_white():
    lines = apply("canny", step_picture(20, 220))
    assert set(np.unique(lines)) == {0, 255}
    assert ((lines[2:-2, :, 0] == 0).sum(1) == 1).all()
    assert set(np.nonzero(lines[8, :, 0] == 0)[0]) <= {7, 8}


@pytest.mark.parametrize("share", [0.98, 1.02])
def test_canny_thresholds_are_in_grey_levels(share):
    limit = share * blurred_step_gradient(60)
    found = (apply(f"canny={limit / 2},{limit}", step_picture(100, 160)) == 0).any()
    assert found == (share < 1)


def test_canny_keeps_weak_edges_that_touch_strong_ones():
    pixels = np.full((24, 24), 100, dtype=np.uint8)
    pixels[:12, 12:], pixels[12:, 12:] = 220, 150  # strong above, weak below, one line
    picture = Image.fromarray(pixels)
    strong, weak = blurred_step_gradient(120), blurred_step_gradient(50)
    below = slice(15, 22)
    high = (strong + weak) / 2
    linked = apply(f"canny={weak * 0.8},{high}", picture)[below, :, 0]
    apart = apply(f"canny={high},{high}", picture)[below, :, 0]
    assert ((linked == 0).sum(1) == 1).all()
    assert (apart == 255).all()


def test_sketch_is_the_contrast_of_a_naive_loop(photo):
    low, high = 10, 90
    got = apply(f"sketch={low},{high}", photo)
    taps = np.array([math.exp(-((i / 0.8) ** 2) / 2) for i in (-1, 0, 1)])
    taps /= taps.sum()
    pixels = np.pad(np.asarray(photo, dtype=np.float64), ((1, 1), (1, 1), (0, 0)), mode="reflect")
    height, width = photo.height, photo.width
    smooth = np.zeros((height, width, 3))
    for dy in range(3):
        for dx in range(3):
            smooth += taps[dy] * taps[dx] * pixels[dy : dy + height, dx : dx + width]
    for y in range(2, height - 2, 5):
        for x in range(2, width - 2, 3):
            block = smooth[y - 1 : y + 2, x - 1 : x + 2]
            contrast = (block.max((0, 1)) - block.min((0, 1))).max()
            want = 255 * (1 - min(1, max(0, (contrast - low) / (high - low))))
            assert abs(int(got[y, x, 0]) - want) <= 1


# Models


def saved(folder: Path, model: torch.nn.Module, processor: object) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def depth_model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    config = transformers.DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
        reassemble_factors=[4, 2, 1, 0.5], is_hybrid=False,
    )  # fmt: skip
    model = transformers.DPTForDepthEstimation(config).eval()
    torch.nn.init.normal_(model.head.head[4].weight, std=1.0)
    torch.nn.init.constant_(model.head.head[4].bias, 1.0)
    processor = transformers.DPTImageProcessorPil(size={"height": 32, "width": 32})
    return saved(tmp_path_factory.mktemp("depth"), model, processor)


def depth_by_hand(folder: Path, photo: Image.Image) -> np.ndarray:
    processor = transformers.DPTImageProcessorPil.from_pretrained(folder)
    model = transformers.DPTForDepthEstimation.from_pretrained(folder).eval()
    with torch.no_grad():
        raw = model(**processor(images=photo, return_tensors="pt")).predicted_depth
    full = torch.nn.functional.interpolate(raw[:, None], photo.size[::-1], mode="bicubic", align_corners=False)[0, 0]
    return ((full - full.min()) / (full.max() - full.min())).numpy()


def test_depth_is_the_models_scaled_to_black_and_white(depth_model, photo):
    got = apply(f"depth={depth_model}", photo)
    assert got.shape == (32, 40, 3)
    assert (got.min(), got.max()) == (0, 255)
    assert np.abs(got[..., 0] - 255 * depth_by_hand(depth_model, photo)).max() <= 0.51


def test_normals_are_those_of_the_depth(depth_model, photo):
    got = apply(f"normal={depth_model},0.2", photo)
    want = (normals(depth_by_hand(depth_model, photo), 0.2) + 1) / 2 * 255
    assert np.abs(got - want).max() <= 1.01


def test_large_pictures_are_made_small_first(depth_model):
    assert apply(f"depth={depth_model}", Image.linear_gradient("L").resize((1500, 300))).shape == (205, 1024, 3)


def test_flat_depth_is_refused(depth_model, tmp_path):
    model = transformers.DPTForDepthEstimation.from_pretrained(depth_model)
    torch.nn.init.zeros_(model.head.head[4].weight)
    folder = saved(tmp_path / "flat", model, transformers.DPTImageProcessorPil.from_pretrained(depth_model))
    with pytest.raises(FreectlError, match="the same depth everywhere"):
        apply(f"depth={folder}", Image.new("RGB", (32, 32)))


def test_a_model_of_another_kind_is_refused(depth_model, photo):
    with pytest.raises(FreectlError, match=r"--preprocess segmentation=.*not a model for segmentation"):
        apply(f"segmentation={depth_model}", photo)


def test_a_folder_without_safetensors_is_refused(depth_model, photo, tmp_path):
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((depth_model / name).read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(FreectlError, match="cannot be loaded from safetensors"):
        apply(f"depth={tmp_path}", photo)


@pytest.fixture(scope="module", params=["segformer", "upernet"])
def segmentation_model(request, tmp_path_factory) -> Path:
    torch.manual_seed(0)
    processor = transformers.SegformerImageProcessorPil(size={"height": 64, "width": 64})
    if request.param == "segformer":
        config = transformers.SegformerConfig(
            num_labels=7, hidden_sizes=[8, 8, 8, 8], num_attention_heads=[1, 1, 1, 1], depths=[1, 1, 1, 1],
            decoder_hidden_size=8,
        )  # fmt: skip
        model = transformers.SegformerForSemanticSegmentation(config)
    else:
        stages = ["stage1", "stage2", "stage3", "stage4"]
        backbone = transformers.ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], out_features=stages)
        config = transformers.UperNetConfig(
            backbone_config=backbone, hidden_size=8, num_labels=7, use_auxiliary_head=False, pool_scales=[1, 2]
        )
        model = transformers.UperNetForSemanticSegmentation(config)
    return saved(tmp_path_factory.mktemp(request.param), model.eval(), processor)


def test_segmentation_paints_the_class_with_the_largest_logit(segmentation_model, photo):
    got = apply(f"segmentation={segmentation_model}", photo)
    processor = transformers.SegformerImageProcessorPil.from_pretrained(segmentation_model)
    model = transformers.AutoModelForSemanticSegmentation.from_pretrained(segmentation_model).eval()
    with torch.no_grad():
        logits = model(**processor(images=photo, return_tensors="pt")).logits
    full = torch.nn.functional.interpolate(logits, photo.size[::-1], mode="bilinear", align_corners=False)[0]
    assert np.array_equal(got, palette(7)[full.argmax(0).numpy()])


def test_palette_tells_150_classes_apart():
    colours = palette(150).astype(float)
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + 1e3 * np.eye(150)
    assert apart.min() > 8
    neighbours = np.linalg.norm(np.diff(colours, axis=0), axis=1)
    assert neighbours.min() > 90
    assert np.array_equal(palette(20), palette(150)[:20])


@pytest.fixture(scope="module")
def pose_models(tmp_path_factory) -> tuple[Path, Path]:
    torch.manual_seed(0)
    backbone = transformers.VitPoseBackboneConfig(
        image_size=[32, 24], patch_size=[8, 8], hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        out_indices=[1],
    )  # fmt: skip
    model = transformers.VitPoseForPoseEstimation(transformers.VitPoseConfig(backbone_config=backbone, num_labels=17))
    torch.nn.init.constant_(next(m for m in model.head.modules() if isinstance(m, torch.nn.Conv2d)).bias, 0.9)
    processor = transformers.VitPoseImageProcessorPil(size={"height": 32, "width": 24})
    pose = saved(tmp_path_factory.mktemp("pose"), model.eval(), processor)
    resnet = transformers.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.RTDetrConfig(
        backbone_config=resnet, d_model=16, encoder_hidden_dim=16, encoder_in_channels=[8, 8, 8], encoder_ffn_dim=16,
        encoder_attention_heads=2, decoder_attention_heads=2, decoder_layers=1, encoder_layers=1, decoder_ffn_dim=16,
        num_queries=4, num_denoising=0, decoder_in_channels=[16, 16, 16], id2label={0: "person"},
    )  # fmt: skip
    detector = transformers.RTDetrForObjectDetection(config).eval()
    finder = saved(
        tmp_path_factory.mktemp("detector"),
        detector,
        transformers.RTDetrImageProcessorPil(size={"height": 64, "width": 64}),
    )
    return pose, finder


def test_pose_draws_the_people_it_finds(pose_models, photo, monkeypatch):
    text = f"pose={pose_models[0]},{pose_models[1]}"
    monkeypatch.setattr("freectl.preprocess.pose.PERSON_SCORE", 1.0)
    with pytest.raises(FreectlError, match="no person found"):
        apply(text, photo)
    monkeypatch.setattr("freectl.preprocess.pose.PERSON_SCORE", 0.0)
    monkeypatch.setattr("freectl.preprocess.pose.JOINT_SCORE", -1.0)
    got = apply(text, photo)
    assert got.shape == (32, 40, 3)
    assert (got == 0).all(-1).any()
    assert (got > 0).any()


def test_skeleton_has_a_coloured_bone_between_sure_joints():
    joints = [(5.0 + 5 * i, 50.0, 0.9) for i in range(17)]
    joints[15] = (10.0, 10.0, 0.9)
    joints[13] = (40.0, 10.0, 0.9)
    joints[11] = (40.0, 40.0, 0.1)
    pixels = np.asarray(draw((100, 100), [joints]))
    assert pixels[10, 25].any()  # 15 to 13
    assert not pixels[25, 40].any()  # 13 to 11, of which one is unsure
    assert not pixels[90].any()
    assert {joint for bone in BONES for joint in bone} == set(range(17))
    assert np.array_equal(np.asarray(draw((100, 100), [])), np.zeros((100, 100, 3)))


# Normals of depth


def test_normals_of_a_ball_that_fills_the_picture():
    side = 201
    y, x = (np.mgrid[:side, :side] + 0.5) / side * 2 - 1
    squared = x**2 + y**2
    depth = np.sqrt(np.clip(1 - squared, 0, None))
    found, want = normals(depth, 0.0), np.stack([x, -y, depth], -1)
    inner = squared < 0.8
    assert np.abs(found - want)[inner].max() < 0.01


def test_normals_of_a_slope_and_of_the_background():
    ramp = np.tile(np.linspace(0, 1, SIDE), (SIDE, 1))  # nearer to the right: faces left
    found = normals(ramp, 0.4)
    slope = RELIEF * SIDE / (SIDE - 1)
    assert np.allclose(found[5, SIDE - 10], np.array([-slope, 0, 1]) / math.hypot(slope, 1), atol=1e-9)
    assert np.allclose(found[:, :15], [0, 0, 1])
    assert np.allclose(normals(ramp.T, 0)[SIDE // 2, 5], np.array([0, slope, 1]) / math.hypot(slope, 1), atol=1e-9)


# Meshes


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    ball, cube = trimesh.creation.icosphere(subdivisions=4, radius=3.0), trimesh.creation.box(extents=(1, 2, 4))
    ball.apply_translation([5, -7, 2])  # where it is and how large does not matter
    for name in ("ball.obj", "ball.glb", "ball.ply"):
        ball.export(folder / name)
    cube.export(folder / "box.obj")
    trimesh.creation.box(extents=(2, 2, 2)).export(folder / "cube.ply")
    return folder


@pytest.mark.parametrize("name", ["ball.obj", "ball.glb", "ball.ply"])
@pytest.mark.parametrize("view", [(0.0, 0.0), (40.0, -70.0)])
def test_a_ball_is_a_ball_from_everywhere(shapes, name, view):
    size = (120, 80)
    surface = mesh.render(mesh.load_mesh(str(shapes / name)), size, view)
    radius = mesh.MARGIN * 80 / 2
    y, x = np.mgrid[:80, :120] + 0.5
    x, y = (x - 60) / radius, (40 - y) / radius
    inside = x**2 + y**2
    hit = np.isfinite(surface.near)
    assert hit[inside < 0.97].all()
    assert not hit[inside > 1.01].any()
    core = inside < 0.9
    depth = np.sqrt(np.clip(1 - inside, 0, None))
    assert np.abs(surface.near / radius - depth)[core].max() < 0.01
    assert np.abs(surface.normals - np.stack([x, y, depth], -1))[core].max() < 0.02
    grey = np.asarray(mesh.picture(surface, "depth"))[..., 0] / 255.0
    low, high = surface.near[hit].min(), surface.near[hit].max()
    want = mesh.FAR_GREY + (1 - mesh.FAR_GREY) * (surface.near - low) / (high - low)
    assert np.abs(grey - want)[hit].max() < 0.003
    assert not grey[~hit].any()
    colours = np.asarray(mesh.picture(surface, "normal")) / 255.0
    assert np.abs(colours * 2 - 1 - surface.normals)[hit].max() < 0.005
    assert np.allclose(colours[0, 0], [0.5, 0.5, 1], atol=0.003)


def test_silhouettes_of_a_box(shapes):
    """Extents 1 x 2 x 4: a rectangle of the two extents across the view."""
    loaded = mesh.load_mesh(str(shapes / "box.obj"))
    for view, (width, height) in {(0, 0): (1, 2), (90, 0): (4, 2), (0, 90): (1, 4), (180, 0): (1, 2)}.items():
        hit = np.isfinite(mesh.render(loaded, (100, 100), view).near)
        scale = mesh.MARGIN * 100 / max(width, height)
        assert hit.sum() == pytest.approx(width * height * scale**2, rel=0.05)
        rows, columns = hit.any(1).nonzero()[0], hit.any(0).nonzero()[0]
        assert len(rows) == pytest.approx(height * scale, abs=1)
        assert len(columns) == pytest.approx(width * scale, abs=1)
        assert hit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


def test_a_turned_cube_has_flat_faces_of_known_directions(shapes):
    surface = mesh.render(mesh.load_mesh(str(shapes / "cube.ply")), (90, 90), (30.0, 0.0))
    hit = np.isfinite(surface.near)
    cos, sin = math.cos(math.radians(30)), math.sin(math.radians(30))
    front, side = np.array([-sin, 0, cos]), np.array([cos, 0, sin])  # the camera has moved towards +x
    is_front = np.abs(surface.normals - front).max(-1) < 1e-6
    is_side = np.abs(surface.normals - side).max(-1) < 1e-6
    assert (is_front | is_side)[hit].all()
    assert is_front.sum() / is_side.sum() == pytest.approx(cos / sin, rel=0.08)  # their widths
    assert is_side[45].nonzero()[0].min() > is_front[45].nonzero()[0].max()
    above = mesh.render(mesh.load_mesh(str(shapes / "cube.ply")), (90, 90), (0.0, 50.0)).normals
    assert above[20, 45, 1] == pytest.approx(math.cos(math.radians(50)))  # the top comes into view


def test_the_nearer_of_two_parts_hides_the_other(tmp_path):
    far, near = trimesh.creation.box(extents=(4, 4, 0.1)), trimesh.creation.box(extents=(1, 1, 0.1))
    near.apply_translation([0, 0, 2])
    trimesh.Scene([near, far]).export(tmp_path / "two.glb")
    loaded = mesh.load_mesh(str(tmp_path / "two.glb"))
    grey = np.asarray(mesh.picture(mesh.render(loaded, (100, 100), (0, 0)), "depth"))[..., 0]
    assert grey[50, 50] == 255
    assert grey[10, 10] == 64
    back = np.asarray(mesh.picture(mesh.render(loaded, (100, 100), (180, 0)), "depth"))[..., 0]
    assert (back[10:90, 10:90] == 255).all()  # all that is seen is at one depth


def test_chunks_do_not_matter(shapes, monkeypatch):
    loaded = mesh.load_mesh(str(shapes / "ball.ply"))
    whole = mesh.render(loaded, (50, 50), (10, 20))
    monkeypatch.setattr(mesh, "CHUNK", 100)
    parts = mesh.render(loaded, (50, 50), (10, 20))
    assert np.array_equal(whole.near, parts.near)
    assert np.allclose(whole.normals, parts.normals)


@pytest.mark.parametrize("text", ["", "30", "a,b", "1,2,3", "0,91", "nan,0"])
def test_views_that_are_refused(text):
    with pytest.raises(InputError, match="--view"):
        mesh.parse_view(text)


def test_meshes_that_are_refused(tmp_path, monkeypatch, shapes):
    (tmp_path / "damaged.glb").write_bytes(b"glTF nothing")
    (tmp_path / "points.obj").write_text("v 0 0 0\nv 1 0 0\n")
    (tmp_path / "inf.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 inf 0\nf 1 2 3\n")
    (tmp_path / "empty.ply").touch()
    for name in ("damaged.glb", "points.obj", "inf.obj", "empty.ply", "none.ply"):
        with pytest.raises(InputError, match="--condition") as caught:
            mesh.load_mesh(str(tmp_path / name))
        assert name in str(caught.value)
    monkeypatch.setattr(mesh, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"freectl\[mesh\]"):
        mesh.load_mesh(str(shapes / "ball.obj"))


def test_extras_name_what_is_imported():
    """What the preprocessors import beyond the dependencies is what the extras of the same names bring."""
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for kind in KINDS.values():
        brought = json.dumps(project["optional-dependencies"][kind.extra])
        assert all(package in brought and importlib.util.find_spec(package) for package in kind.packages)
    assert "trimesh" in json.dumps(project["optional-dependencies"]["mesh"])


def test_default_thresholds_see_the_steps_that_the_published_ones_see_without_blur():
    share = blurred_step_gradient(1.0) / 4  # 4 is the Sobel value of a sharp unit step
    published = {"low": 100, "high": 200}
    for name, value in published.items():
        assert float(KINDS["canny"].values[name]) == pytest.approx(share * value, rel=0.02)


def test_textures_of_a_mesh_are_not_opened(tmp_path, monkeypatch):
    """Two textured boxes: what Pillow would decode for them, and with that format may start a program, stays closed."""
    trimesh = pytest.importorskip("trimesh")

    def box(shift):
        made = trimesh.creation.box()
        made.apply_translation([shift, 0, 0])
        places = np.random.default_rng(0).random((len(made.vertices), 2))
        made.visual = trimesh.visual.TextureVisuals(uv=places, image=Image.new("RGB", (8, 8), "red"))
        return made

    trimesh.Scene([box(0), box(3)]).export(tmp_path / "boxes.glb")
    box(0).export(tmp_path / "box.obj")
    box(0).export(tmp_path / "box.ply")
    opened = []
    open_picture = Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(a) or open_picture(*a, **k))
    trimesh.load_mesh(tmp_path / "boxes.glb")
    assert opened, "trimesh itself opens them"
    opened.clear()
    loaded = mesh.load_mesh(str(tmp_path / "boxes.glb"))
    assert len(loaded.triangles) == 24
    for name in ("box.obj", "box.ply"):
        assert len(mesh.load_mesh(str(tmp_path / name)).triangles) == 12
    assert opened == []
