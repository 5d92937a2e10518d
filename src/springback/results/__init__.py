"""What lies on disk: the store of runs, provenance, result files."""
