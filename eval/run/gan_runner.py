"""Networks outside the diffusion model as variants: a trained generator, and methods that take a picture's looks."""

import torch

from eval.bench.cases import Case
from eval.gans.method import Translator
from eval.run.checked import Checked
from eval.run.runners import Made
from freectl.denoising.cost import Cost


class GanRunner:
    """A translator as a variant; see `eval.run.runners.Runner`."""

    def __init__(self, translator: Translator) -> None:
        self.translator = translator

    def run(self, case: Case) -> Made:
        """Translate the case's input: one pass, no UNet."""
        picture = case.picture()
        cost = Cost()
        with cost.stage("synthesis"):
            image = self.translator(picture)
        cost.record_memory(torch.device("cpu"))
        return Made(image, cost.to_dict(), {**self.translator.about, "seed": self.translator.seed})


class OutsideRunner:
    """A method outside with its settings; see `eval.run.runners.Runner`. It loads anew for each picture."""

    def __init__(self, checked: Checked, seed: int) -> None:
        self.checked, self.seed = checked, seed

    def run(self, case: Case) -> Made:
        """Edit the case's input by the looks of its picture for them."""
        looks = None if case.appearance is None or self.checked.appearance == "none" else case.appearance()
        picture, cost = case.picture(), Cost()
        with cost.stage("load"):
            network = self.checked.method.load(self.checked.settings, self.seed, "cpu", looks)
        with cost.stage("synthesis"):
            image = network(picture)
        cost.record_memory(torch.device("cpu"))
        return Made(image, cost.to_dict(), self.checked.settings.model_dump())
