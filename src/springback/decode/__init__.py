"""Decode with one model, or contrastively with two (paper B, section B2).

``decode`` is the plain loop, ``decode_fast`` the one that gives the same tokens sooner.
"""

from springback.decode.reference import decode
from springback.decode.settings import DecodeSettings, Hooks

__all__ = ["DecodeSettings", "Hooks", "decode"]
