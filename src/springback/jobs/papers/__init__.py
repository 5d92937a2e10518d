"""The studies of the two papers.  Light, since ``--help`` reads the settings."""
