"""What a boost's answers say: methods, seeds, difficulty, logit errors."""
