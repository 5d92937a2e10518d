"""The chapter of a check."""
