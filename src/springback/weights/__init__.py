"""Streamed tensor arithmetic on safetensors folders, without torch (paper B: ME)."""

from springback.weights.extrapolation import Extrapolation as Extrapolation
from springback.weights.extrapolation import extrapolate as extrapolate
from springback.weights.extrapolation import extrapolate_along as extrapolate_along
from springback.weights.folder import file_digest as file_digest
from springback.weights.folder import hash_weights as hash_weights
from springback.weights.folder import tensor_names as tensor_names
from springback.weights.result import ExtrapolationReport as ExtrapolationReport
from springback.weights.result import OutputDtype as OutputDtype

__all__ = [
    "Extrapolation",
    "ExtrapolationReport",
    "OutputDtype",
    "extrapolate",
    "extrapolate_along",
    "file_digest",
    "hash_weights",
    "tensor_names",
]
