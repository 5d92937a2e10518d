"""Elasticity over model size and volume of pre-training, on small models trained here."""
