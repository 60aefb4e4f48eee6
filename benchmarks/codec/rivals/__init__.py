"""Coders and formats of others, each behind a few functions."""
