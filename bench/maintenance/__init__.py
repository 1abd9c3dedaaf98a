"""Housekeeping: what this machine promises, and what can be removed."""
