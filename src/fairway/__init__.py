"""Fairway: train a language model under a byte and a time budget, pack it, and score it provably validly."""

__version__ = "0.1.0"
