"""Streamed tensor arithmetic on safetensors folders, without torch (paper B: ME)."""

from springback.weights.adapters.extrapolation import AdapterExtrapolation as AdapterExtrapolation
from springback.weights.adapters.extrapolation import AdapterReport as AdapterReport
from springback.weights.adapters.extrapolation import extrapolate_adapters as extrapolate_adapters
from springback.weights.adapters.merging import materialise_adapters as materialise_adapters
from springback.weights.adapters.pair import Contrast as Contrast
from springback.weights.adapters.pair import write_adapter_pair as write_adapter_pair
from springback.weights.adapters.reading import is_adapter as is_adapter
from springback.weights.extrapolation import Extrapolation as Extrapolation
from springback.weights.extrapolation import extrapolate as extrapolate
from springback.weights.extrapolation import extrapolate_along as extrapolate_along
from springback.weights.io.folder import file_digest as file_digest
from springback.weights.io.folder import hash_weights as hash_weights
from springback.weights.io.folder import tensor_names as tensor_names
from springback.weights.io.report import ExtrapolationReport as ExtrapolationReport
from springback.weights.io.report import OutputDtype as OutputDtype
from springback.weights.precheck import Call as Call
from springback.weights.precheck import Precheck as Precheck
from springback.weights.precheck import check_line as check_line
from springback.weights.precheck import judge as judge

__all__ = [
    "AdapterExtrapolation",
    "AdapterReport",
    "Call",
    "Contrast",
    "Extrapolation",
    "ExtrapolationReport",
    "OutputDtype",
    "Precheck",
    "check_line",
    "extrapolate",
    "extrapolate_adapters",
    "extrapolate_along",
    "file_digest",
    "hash_weights",
    "is_adapter",
    "judge",
    "materialise_adapters",
    "tensor_names",
    "write_adapter_pair",
]
