"""An OpenAI-compatible HTTP server around the built-in decoder."""

from springback.engines.serve.settings import ENGINES, ServeSettings

__all__ = ["ENGINES", "ServeSettings"]
