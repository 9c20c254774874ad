"""Skeletons of people by transformers: RT-DETR finds them (arXiv 2304.08069), ViTPose their joints (arXiv 2204.12484).

Both have free licences and safetensors; OpenPose's weights have neither.
"""

import colorsys
from collections.abc import Sequence

from PIL import Image, ImageDraw

from freectl.errors import FreectlError
from freectl.preprocess.registry import Apply, Preprocess
from freectl.preprocess.weights import check_model, load, small

BONES = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10),
    (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip
"""Pairs of COCO's 17 joints: legs, hips, trunk, shoulders, arms, head."""
PERSON_SCORE, JOINT_SCORE = 0.5, 0.3
Joints = Sequence[tuple[float, float, float]]


def check(preprocess: Preprocess) -> None:
    """Raises InputError: neither a folder nor a hub id."""
    check_model(preprocess)
    check_model(preprocess, "detector")


def draw(size: tuple[int, int], people: Sequence[Joints]) -> Image.Image:
    """Skeletons on black, each bone in a hue of its own.

    Args:
        size: (width, height) in px.
        people: 17 joints (x, y in px, score) each; bones with a joint below `JOINT_SCORE` are left out.
    """
    picture = Image.new("RGB", size)
    pen, width = ImageDraw.Draw(picture), max(2, round(max(size) / 100))
    for joints in people:
        for number, (start, end) in enumerate(BONES):
            if min(joints[start][2], joints[end][2]) < JOINT_SCORE:
                continue
            red, green, blue = (round(255 * c) for c in colorsys.hsv_to_rgb(number / len(BONES), 1, 1))
            line = [(float(x), float(y)) for x, y, *_ in (joints[start], joints[end])]
            pen.line(line, (red, green, blue), width)
    return picture


def prepare(preprocess: Preprocess, device: str) -> Apply:
    """Skeletons of all people in the picture."""
    import torch
    from transformers import AutoModelForObjectDetection, VitPoseForPoseEstimation

    detector, detector_processor = load(preprocess, AutoModelForObjectDetection, device, "detector")
    model, processor = load(preprocess, VitPoseForPoseEstimation, device)
    person = next((i for i, name in detector.config.id2label.items() if name.lower() == "person"), 0)

    @torch.no_grad()
    def apply(image: Image.Image) -> Image.Image:
        inputs = detector_processor(images=image, return_tensors="pt").to(device)
        found = detector_processor.post_process_object_detection(
            detector(**inputs), threshold=PERSON_SCORE, target_sizes=[image.size[::-1]]
        )[0]
        corners = found["boxes"][found["labels"] == person].cpu()
        if not len(corners):
            raise FreectlError("--preprocess pose: no person found in the picture; try another picture")
        boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).numpy()
        inputs = processor(image, boxes=[boxes], return_tensors="pt").to(device)
        poses = processor.post_process_pose_estimation(model(**inputs), boxes=[boxes])[0]
        people = [torch.cat([one["keypoints"], one["scores"][:, None]], 1).tolist() for one in poses]
        return draw(image.size, people)

    return small(apply)
