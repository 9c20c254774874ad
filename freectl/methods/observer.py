"""What a method tells of its inside while it runs; by default nobody listens."""

from torch import Tensor

from freectl.semantics.analysis import Site
from freectl.semantics.reference import Reference


class Observer:
    """Takes what is told, and does nothing with it. Whatever one does must leave the run as it is.

    `Method.observed` gives a method that tells a given one.
    """

    def compared(self, reference: Reference, site: Site, coordinates: Tensor) -> None:
        """FreeControl compares a picture with a guidance picture at one site.

        Args:
            reference: of the guidance picture, with its masks. site: (timestep, module name).
            coordinates: of the picture that is made, (B, tokens, N), normalised as the reference's; with a graph.
        """

    def attended(self, name: str, attention: Tensor) -> None:
        """Prompt-to-Prompt reads the cross-attention of a layer, as it acts.

        Args:
            name: the lane's, "source" or "edit".
            attention: (B, heads, pixels, tokens), rows that add up to 1 before reweighting.
        """


NOBODY = Observer()
