"""Row copies by name, and the source lane that they come from."""

import pytest
import torch
from torch import Tensor
from toy import TEXT_WIDTH, denoiser_of, toy_scheduler, toy_unet

from freectl.denoising.injection import Injection, SourceInjector, copies, copy_rows, projections, row_pairs, row_places
from freectl.denoising.sampler import Controller, Lane, Prompt, Step, row_keys, sample
from freectl.denoising.schedules import path_of
from freectl.denoising.taps import tap
from freectl.models.families.unet import self_attentions

STEPS = 5
SCALE = 3.0


def noise(batch: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def prompt(batch: int = 1, seed: int = 3, guided: bool = True) -> Prompt:
    generator = torch.Generator().manual_seed(seed)
    halves = [torch.randn(batch, 7, TEXT_WIDTH, generator=generator) for _ in range(2)]
    return Prompt(halves[0], halves[1] if guided else None)


def two_lanes(batch: int = 1, source_guided: bool = False, guided: bool = True) -> dict[str, Lane]:
    return {
        "edit": Lane(noise(batch, 1), prompt(batch, 1, guided), SCALE),
        "source": Lane(noise(batch, 2), prompt(batch, 2, source_guided), SCALE),
    }


def grid(scheduler) -> list[int]:
    scheduler.set_timesteps(STEPS)
    return scheduler.timesteps.tolist()


def levels(batch: int = 1) -> dict[int, Tensor]:
    return {t: noise(batch, 100 + t) for t in grid(toy_scheduler())}


def run(unet, lanes: dict[str, Lane], controller: Controller | None = None, **options) -> dict[str, Lane]:
    scheduler = toy_scheduler()
    return sample(denoiser_of(unet), path_of(scheduler).on(STEPS), lanes, grid(scheduler), controller, **options)


def test_places_follow_order_and_batch():
    lanes = {"edit": Lane(noise(2), prompt(2)), "source": Lane(noise(3), prompt(3, guided=False))}
    keys = [("source", "cond"), ("edit", "cond"), ("edit", "uncond")]
    assert row_places(lanes, keys) == dict(zip(keys, (slice(0, 3), slice(3, 5), slice(5, 7)), strict=True))


def test_pairs_fall_back_to_the_conditional_row():
    one = row_pairs(two_lanes())
    assert one == {("edit", "uncond"): ("source", "cond"), ("edit", "cond"): ("source", "cond")}
    both = row_pairs(two_lanes(source_guided=True))
    assert both == {("edit", "uncond"): ("source", "uncond"), ("edit", "cond"): ("source", "cond")}
    assert row_pairs(two_lanes(guided=False, source_guided=True)) == {("edit", "cond"): ("source", "cond")}


def test_lanes_of_different_batches_cannot_be_paired():
    lanes = two_lanes() | {"source": Lane(noise(2), prompt(2))}
    with pytest.raises(ValueError, match="2 and 1"):
        row_pairs(lanes)


def test_copies_read_before_they_write():
    places = {("a", "cond"): slice(0, 1), ("b", "cond"): slice(1, 2)}
    value = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    swapped = copy_rows(value, places, {("a", "cond"): ("b", "cond"), ("b", "cond"): ("a", "cond")})
    assert torch.equal(swapped, value.flip(0))
    assert torch.equal(value, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))


def test_only_the_target_rows_change_at_a_site(unet):
    lanes = two_lanes(batch=2)
    keys = row_keys(lanes)
    places = row_places(lanes, keys)
    site = "up_blocks.1.resnets.1.conv2"
    with torch.no_grad(), tap(unet, [site]) as seen:
        plain = denoiser_of(unet).rows(lanes, keys, 501)
        before = seen.pop_all()[site]
    with torch.no_grad(), tap(unet, [site], edits=copies([site], places, row_pairs(lanes))) as seen:
        edited = denoiser_of(unet).rows(lanes, keys, 501)
        after = seen.pop_all()[site]
    source = places["source", "cond"]
    assert torch.equal(after[source], before[source])
    for half in ("uncond", "cond"):
        assert torch.equal(after[places["edit", half]], before[source])
    assert torch.equal(edited["source", "cond"], plain["source", "cond"])
    assert not torch.equal(edited["edit", "cond"], plain["edit", "cond"])


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_self_attentions_are_in_execution_order(family):
    unet = toy_unet(family)
    fired: list[str] = []
    names = self_attentions(unet)
    modules = dict(unet.named_modules())
    for name in names:
        modules[name].register_forward_hook(lambda *_, name=name: fired.append(name))
    added = {"text_embeds": torch.zeros(1, 16), "time_ids": torch.zeros(1, 6)} if family == "sdxl" else None
    width = unet.config.cross_attention_dim
    with torch.no_grad():
        unet(noise(), 1, encoder_hidden_states=torch.zeros(1, 7, width), added_cond_kwargs=added)
    assert fired == names
    assert len(names) == sum(name.endswith(".attn1") for name in modules)


def test_projections_name_sites(unet):
    sites = projections(self_attentions(unet)[:2], "qk")
    assert [site.rsplit(".", 1)[1] for site in sites] == ["to_q", "to_k"] * 2
    with tap(unet, sites):
        pass


def test_without_injections_the_source_never_runs_and_nothing_changes(unet):
    lanes = two_lanes()
    start = lanes["source"].latents
    plain = run(unet, {"edit": two_lanes()["edit"]})["edit"].latents
    for injections in ([], [Injection(("mid_block",), 0.0, 0.0)], [Injection((), 0.0, 1.0)]):
        got = run(unet, two_lanes(), SourceInjector({}, injections))
        assert torch.equal(got["edit"].latents, plain)
        assert torch.equal(got["source"].latents, start)


def test_source_follows_the_levels_inside_the_window_only(unet):
    given = levels()
    seen: list[bool] = []

    class Watch(SourceInjector):
        def predict(self, step, lanes, denoiser):
            seen.append("source" in lanes and torch.equal(lanes["source"].latents, given[step.timestep]))
            return super().predict(step, lanes, denoiser)

    sites = projections(self_attentions(unet), "k")
    run(unet, two_lanes(), Watch(given, [Injection(sites, 0.2, 0.6)]))
    assert seen == [False, True, True, False, False]


def test_windows_of_several_injections_add_up(unet):
    injector = SourceInjector({}, [Injection(("a",), 0.0, 0.4), Injection(("b",), 0.2, 0.6)])
    assert [injector.sites(Step(i, 5, 0)) for i in range(5)] == [["a"], ["a", "b"], ["b"], [], []]


def test_injecting_equal_rows_changes_nothing(unet):
    """The source being the edit's own trajectory, every copy is of equal values."""
    own: dict[int, Tensor] = {}

    class Record(Controller):
        def before(self, step, lanes):
            own[step.timestep] = lanes["edit"].latents

    text = prompt(guided=False)
    plain = run(unet, {"edit": Lane(noise(), text)}, Record())["edit"].latents
    sites = (*projections(self_attentions(unet), "qkv"), "up_blocks.1.resnets.1.conv2")
    lanes = {"edit": Lane(noise(), text), "source": Lane(noise(), text)}
    got = run(unet, lanes, SourceInjector(own, [Injection(sites)]))["edit"].latents
    torch.testing.assert_close(got, plain, rtol=0, atol=1e-5 * float(plain.abs().max()))


def test_draws_of_the_edit_do_not_depend_on_the_source(unet):
    """A source that runs without being copied from leaves a stochastic run as it was."""

    class Still(SourceInjector):
        def predict(self, step, lanes, denoiser):
            return Controller.predict(self, step, lanes, denoiser)

    def once(controller: Controller, lanes: dict[str, Lane]) -> Tensor:
        return run(unet, lanes, controller, eta=1.0, generators=[torch.Generator().manual_seed(4)])["edit"].latents

    plain = once(Controller(), {"edit": two_lanes()["edit"]})
    with_source = once(Still(levels(), [Injection(("mid_block.resnets.0.conv2",))]), two_lanes())
    torch.testing.assert_close(with_source, plain, rtol=0, atol=1e-4 * float(plain.abs().max()))
