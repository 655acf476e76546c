"""What a model is made of: its numbers, frozen, and the one list of its parameters.

``weights`` loads that list, ``run`` walks it, ``plan`` counts its bytes. Nothing here imports numpy.
"""

from __future__ import annotations

from kogata.config.decoder import DecoderConfig
from kogata.config.decoder_hf import DECODERS
from kogata.config.encoder import ENCODERS, EncoderConfig
from kogata.config.parameters import Parameter, Precision
from kogata.config.rope import Rope

__all__ = ["DECODERS", "ENCODERS", "DecoderConfig", "EncoderConfig", "Parameter", "Precision", "Rope"]
