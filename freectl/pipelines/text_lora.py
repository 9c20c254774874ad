"""LoRA layers of text encoders, put there by peft itself.

diffusers leaves them to transformers, whose newest versions ask for a peft that is not released yet; a file with layers
for the text, as most have, could not be loaded at all then.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # names of files are checked before torch is imported
    from torch import Tensor, nn


def inject(
    encoder: nn.Module,
    layers: Mapping[str, Tensor],
    alphas: Mapping[str, float],
    adapter: str | None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Give a text encoder a LoRA: W + (alpha / r) B A in every layer that is named (arXiv 2106.09685).

    Args:
        layers: tensors under the encoder's own names, in any of diffusers' spellings. alphas: of layers; default: r.
        adapter: its name; None = a free one. metadata: peft's configuration, if the file carries one.

    Raises:
        ValueError: the encoder has none of the layers, or the name already.
        RuntimeError: a layer has another shape.
    """
    from diffusers.utils.peft_utils import get_adapter_name
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    name = adapter or get_adapter_name(encoder)
    if name in getattr(encoder, "peft_config", {}):
        raise ValueError(f"adapter name {name} already in use in the text encoder")
    state = {_own(key, encoder): tensor for key, tensor in peft_names(layers).items()}
    if metadata is None:
        config = LoraConfig(**_config(state, {_own(_layer(key), encoder): value for key, value in alphas.items()}))
    else:
        config = LoraConfig(**metadata)
    inject_adapter_in_model(config, encoder, name)
    set_peft_model_state_dict(encoder, state, name)
    encoder._hf_peft_config_loaded = True  # type: ignore[assignment]  # what diffusers and transformers ask
    weight = next(encoder.parameters())
    encoder.to(device=weight.device, dtype=weight.dtype)


def peft_names(layers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A text encoder's LoRA in peft's spelling, from that and from both of diffusers' older ones, mixed or not."""
    from diffusers.utils.state_dict_utils import (
        StateDictType,
        convert_state_dict_to_diffusers,
        convert_state_dict_to_peft,
    )

    older = convert_state_dict_to_diffusers(dict(layers), original_type=StateDictType.DIFFUSERS_OLD)
    return convert_state_dict_to_peft(older, original_type=StateDictType.DIFFUSERS)


def _own(key: str, encoder: nn.Module) -> str:
    """Newer versions of transformers have no "text_model." before CLIP's layers."""
    return key if hasattr(encoder, "text_model") else key.removeprefix("text_model.")


def _layer(key: str) -> str:
    return re.sub(r"(\.lora[_.].*)?(\.alpha)?$", "", key)


def _config(state: Mapping[str, Tensor], alphas: Mapping[str, float]) -> dict[str, Any]:
    """peft's configuration: rank and alpha of most layers, and the others by name."""
    ranks = {_layer(key): tensor.shape[1] for key, tensor in state.items() if "lora_B" in key and tensor.dim() > 1}
    each = {layer: (rank, alphas.get(layer, rank)) for layer, rank in ranks.items()}
    rank, alpha = Counter(each.values()).most_common(1)[0][0] if each else (1, 1)
    others = {layer: pair for layer, pair in each.items() if pair != (rank, alpha)}
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {layer: pair[0] for layer, pair in others.items()},
        "alpha_pattern": {layer: pair[1] for layer, pair in others.items()},
        "target_modules": sorted({_layer(key) for key in state}),
        "use_dora": any("lora_magnitude_vector" in key for key in state),
        "lora_bias": any("lora_B" in key and key.endswith(".bias") for key in state),
    }
