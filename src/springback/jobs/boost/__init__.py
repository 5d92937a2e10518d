"""The boost: choose mu and lambda, judge on the test set.  Light; ``job`` runs it."""
