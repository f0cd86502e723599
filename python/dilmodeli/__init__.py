"""DilModeli: language models on ordinary CPUs, with the Nash-Swarm theorem.

``Model`` runs language models. The packages ``core``, ``moe``, ``quantization``, ``optimization`` and ``visualization`` have the names
of the proposal, in Turkish. All work is done by the C library; this is a thin face of it.
"""

from ._library import (
    DilArgumentError,
    DilBusyError,
    DilCancelled,
    DilError,
    DilFormatError,
    DilIOError,
    DilLimitError,
    DilMemoryError,
    DilUnsupportedError,
    __version__,
)
from .model import Answer, Divergence, Model, ModelInfo, Perplexity, Speed

__all__ = [
    "Answer",
    "DilArgumentError",
    "DilBusyError",
    "DilCancelled",
    "DilError",
    "DilFormatError",
    "DilIOError",
    "DilLimitError",
    "DilMemoryError",
    "DilUnsupportedError",
    "Divergence",
    "Model",
    "ModelInfo",
    "Perplexity",
    "Speed",
    "__version__",
]
