"""Devices and users: registration, listings, audiences, imports."""
