"""Scorers with one breach each, the valid scorers beside them, and the table of which test of the audit catches what."""
