"""The jobs: audit, boost, the search that boost uses, and the demo that runs both."""
