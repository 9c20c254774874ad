"""The one training loop: alternation, pools, averages, checkpoints. Which losses, the model says."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from gan_baselines.config import RunConfig
from gan_baselines.data.batches import Batches
from gan_baselines.errors import DivergedError
from gan_baselines.models import GanModel, Terms
from gan_baselines.pool import ImagePool
from gan_baselines.schedules import decay_factor
from gan_baselines.training import state as store
from gan_baselines.training.ema import Ema


class Trainer:
    """Trains `model` on `batches`.

    A step is a function of the checkpointed state and the step number, so a resumed run repeats an uninterrupted one
    to the byte on a CPU with the same number of threads. Networks are not wrapped: with several processes gradients are
    averaged before each update, which leaves freezing and repeated calls as they are.

    Attributes:
        step: finished steps.
    """

    def __init__(self, model: GanModel, batches: Batches, config: RunConfig, accelerator: Accelerator) -> None:
        self.config, self.accelerator, self.batches = config, accelerator, batches
        self.world, self.rank = accelerator.num_processes, accelerator.process_index
        self.model = model.to(accelerator.device).train()
        self.total = batches.total_steps(self.world)
        self.step = 0
        train = config.train
        self.players = {"generator": model.generators, "discriminator": model.discriminators}
        rates = {"generator": train.lr, "discriminator": train.lr_discriminator or train.lr}
        self.base_rates = {name: rates[name] for name, nets in self.players.items() if len(nets)}
        self.optimisers = {name: self._adam(self.players[name], rate) for name, rate in self.base_rates.items()}
        seed = f"{train.seed}/{self.rank}"
        self.pools = {name: ImagePool(model.pool_size, f"{seed}/{name}") for name in model.judged}
        self.ema = Ema(model.generators, train.ema) if train.ema else None
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._finite = torch.ones((), dtype=torch.bool, device=accelerator.device)

    @property
    def best_generators(self) -> nn.ModuleDict:
        """The averaged generators where an average is kept, else the trained ones."""
        return self.ema.network if self.ema else self.model.generators  # type: ignore[return-value]

    def advance(self) -> None:
        """Train one step."""
        batch = self.batches.at(self.step, self.rank, self.world)
        batch = {side: part.to(self.accelerator.device, non_blocking=True) for side, part in batch.items()}
        self._set_rates()
        progress = self.step / max(1, self.total - 1)
        with self.accelerator.autocast():
            fakes = self.model.generate(batch, progress)
        for player in self.model.turns(self.step):
            if player not in self.optimisers:
                continue
            with self._turn_of(player), self.accelerator.autocast():
                if player == "generator":
                    terms = self.model.generator_terms(batch, fakes, progress)
                else:
                    shown = {name: result.detach() for name, result in fakes.items()}
                    shown |= {name: self.pools[name](shown[name]) for name in self.model.judged}
                    terms = self.model.discriminator_terms(batch, shown, progress)
                self._update(player, terms)
        if self.ema:
            self.ema.update(self.model.generators, self.step)
        self.step += 1

    def collect_losses(self) -> dict[str, float]:
        """Return the mean of each loss term since the last call, over the steps that had it and over all processes.

        Raises:
            DivergedError: a loss was not finite.
        """
        self.check_finite()
        sums = torch.stack(list(self._sums.values())) if self._sums else torch.empty(0)
        values = self.accelerator.reduce(sums, "mean") if self._sums else sums
        pairs = zip(self._sums, values.tolist(), strict=True)
        means = {name: value / self._counts[name] for name, value in pairs}
        self._sums, self._counts = {}, {}
        return means

    def check_finite(self) -> None:
        """Read the flag that every step's losses went into: the only wait for the device.

        Raises:
            DivergedError: a loss was not finite.
        """
        if float(self.accelerator.reduce(self._finite.float(), "mean")) < 1:
            raise DivergedError(f"a loss became infinite or not a number before step {self.step}")

    def save(self, folder: Path, more: dict[str, Any]) -> Path | None:
        """Write a checkpoint (main process; None elsewhere) with the JSON values `more`.

        Raises:
            DivergedError: a loss or a weight is not finite; nothing is written.
        """
        self.check_finite()
        networks = [self.model, *([self.ema.network] if self.ema else [])]
        if not all(store.all_finite(network) for network in networks):
            raise DivergedError(f"a weight became infinite or not a number before step {self.step}")
        ranks = self._gather_ranks(more)
        if not self.accelerator.is_main_process:
            return None
        shared: dict[str, Tensor] = {}
        store.put(shared, "model", self.model.state_dict())
        if self.ema:
            store.put(shared, "ema", self.ema.network.state_dict())
        for player, optimiser in self.optimisers.items():
            store.put(shared, f"adam_{player}", store.optimiser_state(optimiser))
        return store.write_checkpoint(folder, self.step, shared, ranks, self.config.train.keep_checkpoints)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            InputError: damaged, or of another number of processes.
        """
        device = self.accelerator.device
        self.step, shared, own, values = store.read_checkpoint(path, f"rank-{self.rank}", self.world)
        self.model.load_state_dict(store.get(shared, "model"))
        if self.ema:
            self.ema.network.load_state_dict(store.get(shared, "ema"))
        for player, optimiser in self.optimisers.items():
            store.restore_optimiser(optimiser, store.get(shared, f"adam_{player}"))
        store.restore_pools(self.pools, store.get(own, "pools"), values["pools"], device)
        self._sums = {name: own[f"sums/{name}"].to(device) for name in values["terms"]}
        counts = values["counts"] if "counts" in values else dict.fromkeys(values["terms"], values["count"])
        self._counts = {name: counts[name] for name in values["terms"]}
        if self.accelerator.scaler is not None and values["scaler"]:
            self.accelerator.scaler.load_state_dict(values["scaler"])
        store.restore_random(store.get(own, "random"))

    def _gather_ranks(self, more: dict[str, Any]) -> dict[str, tuple[dict[str, Tensor], dict[str, Any]]]:
        tensors: dict[str, Tensor] = {}
        pictures, pool_values = store.pools_state(self.pools)
        store.put(tensors, "pools", pictures)
        store.put(tensors, "sums", self._sums)
        store.put(tensors, "random", store.random_state())
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else {}
        values = {"pools": pool_values, "terms": list(self._sums), "counts": self._counts, "scaler": scaler, **more}
        own = (f"rank-{self.rank}", ({name: t.cpu() for name, t in tensors.items()}, values))
        if self.world == 1:
            return dict([own])
        from accelerate.utils import gather_object

        return dict(gather_object([own]))

    def _adam(self, networks: nn.Module, rate: float) -> Any:
        train = self.config.train
        betas = (train.beta1, train.beta2)
        # the fused kernel takes one pass over the weights where the default takes one for each operation
        adam = torch.optim.Adam(networks.parameters(), lr=rate, betas=betas, fused=train.fused_adam or None,
                                weight_decay=train.weight_decay)  # fmt: skip
        return self.accelerator.prepare(adam)

    def _set_rates(self) -> None:
        factor = rate_factor(self.config, self.step, self.total, len(self.batches), self.world)
        for player, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = self.base_rates[player] * factor

    @contextmanager
    def _turn_of(self, player: str) -> Iterator[None]:
        """The other side's weights get no gradient: saves their part of the backward pass, and keeps their .grad."""
        others = [nets for name, nets in self.players.items() if name != player]
        for nets in others:
            nets.requires_grad_(False)
        try:
            yield
        finally:
            for nets in others:
                nets.requires_grad_(True)

    def _update(self, player: str, terms: Terms) -> None:
        optimiser = self.optimisers[player]
        loss = torch.stack(list(terms.values())).sum()
        optimiser.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        self._average_gradients(self.players[player])
        optimiser.step()
        with torch.no_grad():
            self._finite &= torch.isfinite(loss)
            for name, value in terms.items():
                self._sums[name] = self._sums[name] + value.detach() if name in self._sums else value.detach()
                self._counts[name] = self._counts.get(name, 0) + 1

    def _average_gradients(self, networks: nn.Module) -> None:
        if self.world == 1:
            return
        grads = [weight.grad for weight in networks.parameters() if weight.grad is not None]
        flat = self.accelerator.reduce(torch.cat([grad.flatten() for grad in grads]), "mean")
        for grad, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(part.view_as(grad))


def rate_factor(config: RunConfig, step: int, total: int, epoch_size: int, world: int = 1) -> float:
    """Learning-rate factor of the 0-based `step`: by epochs where the run is given in epochs, by steps otherwise."""
    train = config.train
    halved = 0.5 ** (step // train.halve_every) if train.halve_every else 1.0
    if train.steps is None:
        epoch = min(step * train.batch_size * world // epoch_size, train.epochs - 1)
        return halved * decay_factor(epoch, train.epochs - train.decay_epochs, train.decay_epochs)
    decaying = round(total * train.decay_epochs / train.epochs)
    return halved * decay_factor(step, total - decaying, decaying)


def pictures_per_second(steps: int, batch_size: int, since: float) -> float:
    """Rate since `since` (a `time.perf_counter` value), in pictures of one side."""
    return steps * batch_size / max(time.perf_counter() - since, 1e-9)
