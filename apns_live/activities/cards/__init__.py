"""Helpers for what a card shows: content states, buttons, webhooks."""
