"""Prepared copies: cropped and resized once."""
