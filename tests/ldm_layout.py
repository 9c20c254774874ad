"""Pipelines as one file in the original layout of Stable Diffusion: the inverse of what diffusers reads."""

import re
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]
RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0"}
RESNET |= {"conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
WHOLE = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
WHOLE |= {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
WHOLE |= {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def single_file(pipe: Any) -> State:
    """All weights of a Stable Diffusion 1, 2 or XL pipeline under their original names."""
    xl = hasattr(pipe, "text_encoder_2")
    state = {f"model.diffusion_model.{k}": v for k, v in unet(pipe.unet.state_dict()).items()}
    state |= {f"first_stage_model.{k}": v for k, v in vae(pipe.vae.state_dict()).items()}
    first = "conditioner.embedders.0." if xl else "cond_stage_model."
    state |= {f"{first}transformer.text_model.{k}": v for k, v in bare(pipe.text_encoder.state_dict()).items()}
    if xl:
        second = open_clip(bare(pipe.text_encoder_2.state_dict()))
        state |= {f"conditioner.embedders.1.model.{k}": v for k, v in second.items()}
    return {name: tensor.clone().contiguous() for name, tensor in state.items()}


def bare(state: State) -> State:
    return {name.removeprefix("text_model."): tensor for name, tensor in state.items()}


def unet(state: State, layers: int = 2) -> State:
    """Two resnets a down block, three an up block."""

    def place(name: str) -> str:
        for ours, theirs in WHOLE.items():
            if name.startswith(f"{ours}."):
                return theirs + name[len(ours) :]
        side, number, kind, index, rest = re.fullmatch(
            r"(down|mid|up)_blocks?(?:\.(\d+))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", name
        ).groups()
        if kind == "resnets":
            part, dot, leaf = rest.partition(".")
            rest = RESNET[part] + dot + leaf
        i, j = int(number or 0), int(index)
        if side == "mid":
            return f"middle_block.{2 * j if kind == 'resnets' else 1}.{rest}"
        if side == "down":
            if kind == "downsamplers":
                return f"input_blocks.{(layers + 1) * (i + 1)}.0.op.{rest.removeprefix('conv.')}"
            return f"input_blocks.{(layers + 1) * i + j + 1}.{0 if kind == 'resnets' else 1}.{rest}"
        if kind == "upsamplers":
            behind = 2 if f"up_blocks.{i}.attentions.{layers}.norm.weight" in state else 1
            return f"output_blocks.{(layers + 1) * i + layers}.{behind}.{rest}"
        return f"output_blocks.{(layers + 1) * i + j}.{0 if kind == 'resnets' else 1}.{rest}"

    return {place(name): tensor for name, tensor in state.items()}


def vae(state: State) -> State:
    levels = 1 + max(int(found[1]) for name in state if (found := re.search(r"up_blocks\.(\d+)", name)))

    def place(name: str) -> str:
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        name = name.replace("mid_block.attentions.0", "mid.attn_1")
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", name)
        name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
        for ours, theirs in VAE_ATTENTION.items():
            name = name.replace(f"attn_1.{ours}.", f"attn_1.{theirs}.")
        return name

    def shape(name: str, tensor: Tensor) -> Tensor:
        linear = ".attn_1." in name and name.endswith("weight") and tensor.dim() == 2
        return tensor[:, :, None, None] if linear else tensor

    placed = {place(name): tensor for name, tensor in state.items()}
    return {name: shape(name, tensor) for name, tensor in placed.items()}


def open_clip(state: State) -> State:
    """SDXL's second text encoder: query, key and value in one matrix, the projection transposed."""
    whole = {"embeddings.token_embedding.weight": "token_embedding.weight"}
    whole |= {"embeddings.position_embedding.weight": "positional_embedding"}
    whole |= {"final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias"}
    inside = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    inside |= {"self_attn.out_proj": "attn.out_proj"}
    made = {theirs: state[ours] for ours, theirs in whole.items()} | {
        "text_projection": state["text_projection.weight"].T
    }
    for name, tensor in state.items():
        found = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if found is None:
            continue
        layer, part, kind = found.groups()
        into = f"transformer.resblocks.{layer}"
        if part in inside:
            made[f"{into}.{inside[part]}.{kind}"] = tensor
        elif part.endswith("q_proj"):
            names = [name.replace("q_proj", f"{x}_proj") for x in "qkv"]
            made[f"{into}.attn.in_proj_{kind}"] = torch.cat([state[one] for one in names])
    return made
