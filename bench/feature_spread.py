"""How much features differ between images before fine-tuning, as a record says it, and when a network counts as dead."""

from __future__ import annotations

from bench.schema import Schema

LEAST_RATIO, MOST_COSINE = 0.1, 0.999
"""A network counts as dead when `FeatureSpread.ratio` is below the first, or `FeatureSpread.cosine` above the second."""


class FeatureSpread(Schema):
    """How much the features of different training images differ before the first phase, in the mode the network is scored in.

    A batch norm's ratio is the standard deviation over images of its output, divided by the same under the batch's own
    statistics. `ratio` is the lowest of all batch norms, that of `layer`. `cosine` is the median cosine between the head's inputs
    for two images.
    """

    images: int
    """The number of images compared."""
    layer: str = ""
    ratio: float | None = None
    cosine: float | None = None
    measured: tuple[str, ...] = ()
    """The names of the batch norms whose statistics were measured before the comparison."""
    measured_on: int = 0
    """The number of images that the statistics were measured on."""

    @property
    def problem(self) -> str:
        """How little the features of a dead network differ between images; "" when the network is not dead."""
        if self.ratio is not None and self.ratio < LEAST_RATIO:
            return f"images differ in {self.layer} by {100 * self.ratio:.2g} % of what they do under batch statistics"
        if self.cosine is not None and self.cosine > MOST_COSINE:
            return f"the features of two images have a median cosine of {self.cosine:.5f}"
        return ""
