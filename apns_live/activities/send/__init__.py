"""Sends what was accepted, and stores the results."""
