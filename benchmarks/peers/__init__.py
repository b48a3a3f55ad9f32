"""Senders in other languages, fetched from their registries and built: for the published table."""
