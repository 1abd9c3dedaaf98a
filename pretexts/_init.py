"""Weights from elsewhere: a trunk whose encoder, or encoder and decoder, were trained by others. `--init` names them."""

from __future__ import annotations

from bench.contract import Untrained


class Init(Untrained):
    """Weights from elsewhere, which the bench loads into the trunk (`bench.models.weights`) and does not train further."""
