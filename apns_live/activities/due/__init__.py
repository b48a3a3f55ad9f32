"""Do what time brings: starts and ends that are due, expiry, missing tokens, pruning."""
