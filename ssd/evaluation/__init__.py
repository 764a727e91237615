"""Evaluation: features, their statistics, and the Frechet distance."""
