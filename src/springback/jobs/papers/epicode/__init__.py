"""EpiCoDe's tables and figures: cells (a model on a task) over seeds."""
