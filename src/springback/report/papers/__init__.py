"""Pages of the papers' studies."""
