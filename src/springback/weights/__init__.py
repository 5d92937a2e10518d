"""Streamed tensor arithmetic on safetensors folders, without torch (paper B: ME)."""

from springback.weights.adapter import is_adapter as is_adapter
from springback.weights.adapter_job import AdapterExtrapolation as AdapterExtrapolation
from springback.weights.adapter_job import AdapterReport as AdapterReport
from springback.weights.adapter_job import extrapolate_adapters as extrapolate_adapters
from springback.weights.adapter_pair import Contrast as Contrast
from springback.weights.adapter_pair import write_adapter_pair as write_adapter_pair
from springback.weights.extrapolation import Extrapolation as Extrapolation
from springback.weights.extrapolation import extrapolate as extrapolate
from springback.weights.extrapolation import extrapolate_along as extrapolate_along
from springback.weights.folder import file_digest as file_digest
from springback.weights.folder import hash_weights as hash_weights
from springback.weights.folder import tensor_names as tensor_names
from springback.weights.materialise import materialise_adapters as materialise_adapters
from springback.weights.precheck import Call as Call
from springback.weights.precheck import Precheck as Precheck
from springback.weights.precheck import check_line as check_line
from springback.weights.precheck import judge as judge
from springback.weights.result import ExtrapolationReport as ExtrapolationReport
from springback.weights.result import OutputDtype as OutputDtype

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
