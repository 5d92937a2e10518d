"""The audit's chapter of a report: each topic's charts and section."""
