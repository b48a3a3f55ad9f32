"""Scheduled work: starts and ends at a set time, expiry, missing tokens, pruning."""
