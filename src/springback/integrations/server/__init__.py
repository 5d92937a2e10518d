"""An OpenAI-compatible HTTP server around the built-in decoder."""

from springback.integrations.server.settings import ServeSettings
from springback.settings import ENGINES

__all__ = ["ENGINES", "ServeSettings"]
