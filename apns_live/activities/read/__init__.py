"""Answer questions about activities and operations, and follow them."""
