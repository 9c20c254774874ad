"""A trained generator as one more variant."""

import torch

from eval.bench.cases import Case
from eval.gans.method import Translator
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
