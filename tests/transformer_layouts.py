"""Transformers under their publishers' names: the inverse of what diffusers reads."""

import torch
from torch import Tensor

State = dict[str, Tensor]
_DOUBLE = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "attn.norm_q.weight": "img_attn.norm.query_norm.scale",
    "attn.norm_k.weight": "img_attn.norm.key_norm.scale",
    "attn.norm_added_q.weight": "txt_attn.norm.query_norm.scale",
    "attn.norm_added_k.weight": "txt_attn.norm.key_norm.scale",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
    "attn.to_q": "img_attn.qkv",
    "attn.add_q_proj": "txt_attn.qkv",
}
_SINGLE = {
    "norm.linear": "modulation.lin",
    "attn.norm_q.weight": "norm.query_norm.scale",
    "attn.norm_k.weight": "norm.key_norm.scale",
    "proj_out": "linear2",
    "attn.to_q": "linear1",
}
_WHOLE = {
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "context_embedder": "txt_in",
    "x_embedder": "img_in",
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
}


def flux(state: State) -> State:
    """FLUX.1's and Chroma's: queries, keys and values as one, shift before scale at the end."""
    made: State = {}
    for name, weight in state.items():
        tensor, (part, _, rest) = weight, name.partition(".")
        if part in ("transformer_blocks", "single_transformer_blocks"):
            double = part == "transformer_blocks"
            block, _, leaf = rest.partition(".")
            place = _renamed(leaf, _DOUBLE if double else _SINGLE)
            if place is None:  # joined with the queries
                continue
            if place.split(".")[-2] in ("qkv", "linear1"):
                keys = [name.replace("to_q", f"to_{x}").replace("add_q", f"add_{x}") for x in "qkv"]
                keys += [] if double else [name.replace("attn.to_q", "proj_mlp")]
                tensor = torch.cat([state[key] for key in keys])
            made[f"{'double' if double else 'single'}_blocks.{block}.{place}"] = tensor
        elif part == "distilled_guidance_layer":
            own = name.replace("linear_1", "in_layer").replace("linear_2", "out_layer")
            made[own.replace("weight", "scale") if ".norms." in name else own] = tensor
        else:
            swapped = torch.cat(tensor.chunk(2)[::-1]) if part == "norm_out" else tensor
            made[str(_renamed(name, _WHOLE))] = swapped
    return {name: tensor.clone().contiguous() for name, tensor in made.items()}


def z_image(state: State) -> State:
    """Z-Image's: queries, keys and values as one."""
    names = {"all_final_layer.2-1.": "final_layer.", "all_x_embedder.2-1.": "x_embedder.", "to_out.0": "out"}
    names |= {"norm_k": "k_norm", "norm_q": "q_norm"}
    made: State = {}
    for name, weight in state.items():
        if name.endswith(("attention.to_k.weight", "attention.to_v.weight")):
            continue
        place, tensor = name, weight
        for ours, theirs in names.items():
            place = place.replace(ours, theirs)
        if name.endswith("attention.to_q.weight"):
            tensor = torch.cat([state[name.replace("to_q", f"to_{x}")] for x in "qkv"])
            place = place.replace("to_q", "qkv")
        made[place] = tensor.clone().contiguous()
    return made


def prefixed(state: State) -> State:
    """As some files have them."""
    return {f"model.diffusion_model.{name}": tensor.clone().contiguous() for name, tensor in state.items()}


def _renamed(name: str, names: dict[str, str]) -> str | None:
    """The name whose beginning, up to a dot or its end, is replaced; None where none is."""
    for ours, theirs in names.items():
        if name == ours or name.startswith(f"{ours}."):
            return theirs + name[len(ours) :]
    return None
