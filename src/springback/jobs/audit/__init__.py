"""The audit: align, perturb, measure on the way.  Light, for the help; ``job`` runs it."""
