"""Saving, loading and describing pipelines; published checkpoints."""
