"""An OpenAI-compatible HTTP server around the built-in decoder."""

from springback.integrations.server.settings import ServeSettings

__all__ = ["ServeSettings"]
