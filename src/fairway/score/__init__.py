"""Scoring: predictors propose distributions, one driver commits them to a ledger, then reveals the text."""
