"""What the engine is worth on this machine, beside other senders in the same run."""
