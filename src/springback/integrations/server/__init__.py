"""An OpenAI-compatible HTTP server around the built-in decoder."""

from springback.integrations.server.settings import ENGINES, ServeSettings

__all__ = ["ENGINES", "ServeSettings"]
