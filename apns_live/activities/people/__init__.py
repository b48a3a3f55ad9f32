"""The people and devices behind activities: registration, listings, audiences, imports."""
