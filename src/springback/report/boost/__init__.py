"""The boost's chapter of a report."""
