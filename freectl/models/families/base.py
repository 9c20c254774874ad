"""What a model family declares: all that the rest of the code needs to know of a kind of checkpoint."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from freectl.denoising.attention_layers import AttentionLayer, Part
from freectl.errors import InputError
from freectl.models.conditioning import TextConditioner

ON_FEW_STEPS = ("sdedit", "flowedit")
"""Methods that follow no trajectory of a picture: all that few-step models run."""
CONTROL_NETWORKS = ("controlnet", "t2i-adapter")
"""Kinds of trained control networks, which are methods too."""
FLOW_METHODS = ("rf-inversion",)
"""Methods that exist on flows alone."""


@dataclass(frozen=True)
class CtrlXSites:
    """Where Ctrl-X acts (arXiv 2406.07540).

    Attributes:
        injected: sites whose outputs are the structure's: one residual block, queries and keys of attentions.
        transferred: layer in which the picture attends to itself -> site of its input, which takes over the
            appearance's statistics.
    """

    injected: tuple[str, ...]
    transferred: Mapping[str, str]


@dataclass(frozen=True)
class Family(ABC):
    """A kind of checkpoint; each file beside this one declares one, and `freectl.models.families` lists them.

    Attributes:
        name: what it is called.
        component: the pipeline's component that is the denoising network.
        pipeline: "module:class" of the pipeline of ours that opens it.
        text: encodes its prompts.
        guidance_scale: default of its samplers.
        freecontrol: FreeControl's settings that depend on the kind of model; `guidance_scale` where its own is another.
        pnp: Plug-and-Play's windows that depend on the kind of model; a feature_stop of 0 where it has no features.
        upcast_vae: its VAE runs in fp32 where fp16 weights ask for it.
        square: pictures are fitted to the square it was trained on, whatever their shape.
        framed: whether what its pictures show never fills their border; see `attention_maps.turned`.
        words: its entry of `prompts/seeds.yaml` and `prompts/directions.yaml`: what its seed pictures are asked for.
        network: class of that network in diffusers.
        methods: names of the methods that it runs; None = all, those of `FLOW_METHODS` on flows.
        single_files: diffusers' names of its kinds of single file.
        flow: whether its networks predict velocities.
        wide_latents: latents stay in fp32 whatever the network is in, as its own samplers have it.
        control_networks: kind of trained control network, of `CONTROL_NETWORKS` -> its class in diffusers.
        guidance: how a scale of guidance works: "free", by a row without text; "embedded", told to a network that was
            distilled on it, in one row; "none", a network that was distilled to few steps takes none.
        told: entries of the pipeline's configuration that its pipelines have, where others share the network.
    """

    name: str
    component: str
    pipeline: str
    text: type[TextConditioner]
    guidance_scale: float
    freecontrol: Mapping[str, Any]
    pnp: Mapping[str, float] = field(default_factory=dict)
    upcast_vae: bool = False
    square: bool = False
    framed: bool = False
    words: str = "photos"
    network: str = "UNet2DConditionModel"
    methods: tuple[str, ...] | None = None
    single_files: tuple[str, ...] = ()
    flow: bool = False
    wide_latents: bool = False
    control_networks: Mapping[str, str] = field(default_factory=dict)
    guidance: Literal["free", "embedded", "none"] = "free"
    told: Mapping[str, Any] = field(default_factory=dict)

    @abstractmethod
    def fits(self, network: Any) -> bool:
        """Whether a network is of this family, by its configuration and layers; its weights are not looked at."""

    @property
    @abstractmethod
    def looked_for(self) -> str:
        """What `fits` asks for, in words."""

    @abstractmethod
    def described(self, network: Any) -> str:
        """What a network of its class is that does not fit, in words."""

    @abstractmethod
    def call(
        self,
        network: nn.Module,
        latents: Tensor,
        time: float | Tensor,
        embeds: Tensor,
        added: dict[str, Tensor] | None,
        attention_kwargs: dict[str, Any] | None,
    ) -> Tensor:
        """One call of the network; see `freectl.denoising.sampler.Call`."""

    @abstractmethod
    def latent_shape(self, network: Any) -> tuple[int, int, int]:
        """(channels, height, width) of the latents at the size the model was trained at."""

    @abstractmethod
    def structure_sites(self, network: nn.Module, layers: str = "all", features: str = "keys") -> list[str]:
        """Sites whose outputs carry structure (arXiv 2312.07536, section 4), in execution order.

        Args:
            layers: "all" of the tapped block, its "first", or its "last".
            features: "keys" of self-attention; "block": queries and outputs of residual blocks too, where there are.
        """

    @abstractmethod
    def concept_layers(self, network: nn.Module) -> list[AttentionLayer]:
        """Attentions to the text beside the structure sites, on the same tokens: FreeControl's masks."""

    @abstractmethod
    def word_layers(self, network: nn.Module) -> list[AttentionLayer]:
        """Attentions to the text that tell best where a word is, all on one grid; in execution order."""

    @abstractmethod
    def self_layers(self, network: nn.Module) -> list[AttentionLayer]:
        """All layers in which the picture attends to itself, in execution order."""

    @abstractmethod
    def cross_layers(self, network: nn.Module) -> list[AttentionLayer]:
        """All layers in which the picture attends to the text, in execution order."""

    @abstractmethod
    def pnp_sites(self, network: nn.Module) -> tuple[str | None, tuple[str, ...]]:
        """The feature site, or None, and the query and key sites, of Plug-and-Play (arXiv 2211.12572).

        Raises:
            InputError: the network has no such layers.
        """

    @abstractmethod
    def ctrlx_sites(self, network: nn.Module) -> CtrlXSites:
        """Where Ctrl-X acts.

        Raises:
            InputError: the network has no such layers.
        """

    def grid(self, scheduler: Any, network: Any, size: tuple[int, int], steps: int) -> dict[str, Any]:
        """Further arguments of the scheduler's `set_timesteps`, for latents of `size` (height, width)."""
        return {}

    def rescaled(self, guided: Tensor, cond: Tensor) -> Tensor:
        """The guided output that is used, (B, C, h, w), given that of the conditional half."""
        return guided

    def few_steps(self, index: Mapping[str, Any], schedule: Mapping[str, Any]) -> bool:
        """Whether a checkpoint is distilled to a few steps, on which no inversion leads back to its picture.

        Args:
            index: the pipeline's configuration. schedule: its scheduler's.
        """
        return False

    def patch(self, network: Any) -> int:
        """Latent cells to a token's side: what the latents' height and width must be multiples of."""
        return 1

    def read(self, network: nn.Module, value: Tensor, size: tuple[int, int]) -> Tensor:
        """Output of a structure site, for latents of `size` (height, width), as features (rows, tokens, C)."""
        return value

    def parts(self, network: nn.Module, size: tuple[int, int]) -> Mapping[str, Part]:
        """Site -> the picture's tokens, where not all that passes is theirs or tokens are not the second axis.

        Args:
            size: of the latents, (height, width).
        """
        return {}

    def packed(self, network: Any, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) as diffusers' pipelines of the family hold them in their loop."""
        return latents

    def unpacked(self, network: Any, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Latents (B, C, height, width) of what `packed` gave, or of what is so already."""
        return latents

    def largest(self, network: Any) -> int | None:
        """Latent cells of the longest side that the network has places for; None = any."""
        return None

    def check_method(self, name: str, *, few_steps: bool = False) -> None:
        """Check that the family runs a method.

        Args:
            few_steps: whether the checkpoint is distilled to a few steps.

        Raises:
            InputError: it does not; the message lists those that it runs.
        """
        if self.runs(name) and not self.runs(name, few_steps=few_steps):
            found = f"{name} on a {self.name} model distilled to a few steps, which inversion does not follow"
            able = ", ".join(one for one in ON_FEW_STEPS if self.runs(one))
            raise InputError("--method", found, f"{able}, or the model that it was distilled from")
        if not self.runs(name):
            named = [name for name in self.methods or () if self.runs(name)]
            allowed = f"{', '.join(named) or 'another method'}, or a model that runs it: {', '.join(_runners(name))}"
            raise InputError("--method", f"{name}, which does not run on {self.name} models", allowed)

    def runs(self, method: str, *, few_steps: bool = False) -> bool:
        """Whether the family runs a method, by its name; `few_steps` as for `check_method`."""
        if method in CONTROL_NETWORKS:
            return method in self.control_networks
        if (few_steps and method not in ON_FEW_STEPS) or (method in FLOW_METHODS and not self.flow):
            return False
        return self.methods is None or method in self.methods

    def check_long_prompts(self) -> None:
        """Check that the family reads texts in pieces.

        Raises:
            InputError: it does not.
        """
        if not self.text.takes_pieces:
            raise InputError("--long-prompts", f"a {self.name} model, whose text is one sequence", "shorter texts")


def _runners(method: str) -> list[str]:
    """Names of the families that run a method."""
    from freectl.models.families import FAMILIES  # which imports this

    return [family.name for family in FAMILIES if family.runs(method)]
