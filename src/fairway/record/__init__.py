"""The record room: statistics of runs, their comparison, and the audit of a claim (test Q)."""
