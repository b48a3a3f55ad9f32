"""Take a call in: one transaction, then an answer. Nothing here sends."""
