"""The theory of paper A (section A1): token trees, codes, the elasticity theorem, leaf masses."""

from springback.theory.coding import (
    entropy,
    huffman_lengths,
    ideal_lengths,
    kraft_sum,
    mean_length,
    normalised_rate,
    rate,
)
from springback.theory.masses import (
    LAWS,
    leaf_masses,
    opposed,
    overlap,
    overlapping,
    permuted,
    pruned,
)
from springback.theory.pareto import Rival, TailFit, fit_tail
from springback.theory.springs import (
    Elongation,
    change,
    mean_cost,
    ngram_costs,
    predicted,
    responses,
)
from springback.theory.theorem import Sets, Slopes, difference, joint_masses, rates, slopes
from springback.theory.trees import END, TokenTree, aligned, joint

__all__ = [
    "END",
    "LAWS",
    "Elongation",
    "Rival",
    "Sets",
    "Slopes",
    "TailFit",
    "TokenTree",
    "aligned",
    "change",
    "difference",
    "entropy",
    "fit_tail",
    "huffman_lengths",
    "ideal_lengths",
    "joint",
    "joint_masses",
    "kraft_sum",
    "leaf_masses",
    "mean_cost",
    "mean_length",
    "ngram_costs",
    "normalised_rate",
    "opposed",
    "overlap",
    "overlapping",
    "permuted",
    "predicted",
    "pruned",
    "rate",
    "rates",
    "responses",
    "slopes",
]
