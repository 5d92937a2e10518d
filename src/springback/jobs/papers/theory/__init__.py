"""The elasticity theorem, Pareto tails and springs, on data made or given."""
