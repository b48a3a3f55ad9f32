"""Queries about activities and operations, and following them."""
