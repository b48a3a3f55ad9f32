"""The service above delivery: activities by id, streams by key, the people and devices behind them."""
