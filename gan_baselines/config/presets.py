"""The sizes that models come in: as published, and small enough for a CPU."""

from typing import Any

_SMALL_PICTURES = {"size": 64, "load_size": 64}
_SMALL_RESNET = {"generator": {"blocks": 6, "width": 24}, "discriminator": {"width": 32}}
_SMALL_BASELINE = {"generator": {"blocks": 6, "width": 24}, "discriminator": {"width": 32, "n_layers": 2}}
_TWO_SCALES = {"discriminator": {"width": 32, "scales": 2}}
_SMALL_FEATURES = {"kind": "small", "stages": 4}
_CONSTANT = {"decay_epochs": 0}
_SMALL_UNET = {"generator": {"downs": 6, "width": 16}, "discriminator": {"width": 32}}

# "published": the papers' and their codes' settings where they differ from the field defaults; "small": 64 px, over it
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "published": {
        "dcgan": {"data": {"flip": False}, "train": {"batch_size": 64, "epochs": 25, "decay_epochs": 0}},
        "discogan": {"data": {"flip": False}, "train": {"batch_size": 64, "weight_decay": 1e-5, **_CONSTANT}},
        "dtn": {"train": {"batch_size": 100, "lr": 3e-4, **_CONSTANT}},
        "cogan": {"data": {"flip": False}, "train": {"batch_size": 64, "weight_decay": 5e-4, **_CONSTANT}},
        "unit": {"train": {"lr": 1e-4, "weight_decay": 1e-4, "steps": 500_000, **_CONSTANT}},
        "munit": {"train": {"lr": 1e-4, "weight_decay": 1e-4, "steps": 1_000_000, "halve_every": 100_000, **_CONSTANT}},
        "gcgan": {"model": {"generator": {"blocks": 6}}, "train": {"batch_size": 12}},
        "bicyclegan": {"train": {"batch_size": 2, "epochs": 60, "decay_epochs": 30}},
        "cvaegan": {"train": {"batch_size": 128, **_CONSTANT}},
        "infogan": {
            "data": {"flip": False},
            "train": {"batch_size": 128, "epochs": 50, "lr": 1e-3, "lr_discriminator": 2e-4, **_CONSTANT},
        },
        "spade": {
            "train": {
                "lr": 1e-4,
                "lr_discriminator": 4e-4,
                "beta1": 0.0,
                "beta2": 0.9,
                "batch_size": 32,
                "epochs": 100,
                "decay_epochs": 50,
            },
        },
        "stackgan": {
            "data": {"flip": False},
            "train": {"batch_size": 128, "epochs": 120, "halve_every": 20_000, **_CONSTANT},
        },
        "progan": {
            "train": {"batch_size": 16, "lr": 1e-3, "beta1": 0.0, "beta2": 0.99, "ema": 0.999, **_CONSTANT},
        },
        "adain": {
            "data": {"load_size": 512, "size": 256},
            "train": {"batch_size": 8, "lr": 1e-4, "beta1": 0.9, "steps": 160_000, **_CONSTANT},
        },
        "johnson": {
            "data": {"load_size": 256, "size": 256},
            "train": {"batch_size": 4, "lr": 1e-3, "beta1": 0.9, "steps": 40_000, **_CONSTANT},
        },
        "classifier": {"train": {"batch_size": 64, "lr": 1e-3, "beta1": 0.9, "epochs": 30, "decay_epochs": 30}},
    },
    "small": {
        "dcgan": {"model": {"width": 32}, "data": _SMALL_PICTURES, "train": {"batch_size": 32}},
        "pix2pix": {"model": _SMALL_UNET, "data": _SMALL_PICTURES},
        "cyclegan": {"model": _SMALL_RESNET, "data": _SMALL_PICTURES},
        "modified-cyclegan": {"model": _SMALL_RESNET, "data": _SMALL_PICTURES},
        "discogan": {"model": {"width": 32}, "data": _SMALL_PICTURES, "train": {"batch_size": 32}},
        "dtn": {"model": {"width": 32}, "data": _SMALL_PICTURES, "train": {"batch_size": 16}},
        "simgan": {"model": _SMALL_BASELINE, "data": _SMALL_PICTURES},
        "feature-gan": {"model": _SMALL_BASELINE, "data": _SMALL_PICTURES},
        "bigan": {"model": _SMALL_BASELINE, "data": _SMALL_PICTURES},
        "cogan": {"model": {"width": 32}, "data": _SMALL_PICTURES, "train": {"batch_size": 32}},
        "unit": {
            "model": {"width": 24, "blocks": 2, **_TWO_SCALES},
            "data": _SMALL_PICTURES,
            "train": {"steps": 10_000},
        },
        "munit": {
            "model": {"width": 24, "blocks": 3, **_TWO_SCALES},
            "data": _SMALL_PICTURES,
            "train": {"steps": 10_000, "halve_every": 0},
        },
        "gcgan": {"model": _SMALL_BASELINE, "data": _SMALL_PICTURES, "train": {"batch_size": 1}},
        "bicyclegan": {
            "model": {
                "generator": {"downs": 6, "width": 16},
                "discriminator": {"width": 32, "n_layers": 2},
                "encoder_width": 32,
                "encoder_blocks": 3,
            },
            "data": _SMALL_PICTURES,
            "train": {"batch_size": 4},
        },
        "cvaegan": {"model": {"width": 32}, "data": _SMALL_PICTURES, "train": {"batch_size": 32}},
        "infogan": {"model": {"width": 32}, "data": _SMALL_PICTURES, "train": {"batch_size": 32}},
        "pix2pixhd": {
            "model": {"width": 32, "downs": 2, "blocks": 6, **_TWO_SCALES},
            "data": _SMALL_PICTURES,
            "train": {"batch_size": 4},
        },
        "spade": {
            "model": {"width": 16, "ups": 4, "hidden": 32, "spade_norm": "instance", "size": 64, **_TWO_SCALES},
            "data": _SMALL_PICTURES,
            "train": {"batch_size": 4},
        },
        "stackgan": {
            "model": {"size": 64, "first_size": 32, "condition": 32, "text": 64, "width": 32},
            "data": _SMALL_PICTURES,
            "train": {"batch_size": 32, "halve_every": 0},
        },
        "progan": {"model": {"noise": 128, "widths": [128, 128, 128, 64, 32]}, "data": _SMALL_PICTURES},
        "adain": {
            "model": {"features": _SMALL_FEATURES, "layer": "relu3_1"},
            "data": _SMALL_PICTURES,
            "train": {"lr": 1e-3, "steps": 8_000},
        },
        "johnson": {
            "model": {
                "generator": {"width": 16},
                "features": _SMALL_FEATURES,
                "content_layer": "relu2_2",
                "style_layers": ["relu1_2", "relu2_2", "relu3_2", "relu4_2"],
                "scale_features": True,
                "lambda_style": 0.01,
            },
            "data": _SMALL_PICTURES,
            "train": {"lr": 1e-3, "beta1": 0.9, "steps": 2_000},
        },
        "classifier": {"data": _SMALL_PICTURES},
    },
}
