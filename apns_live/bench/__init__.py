"""The benchmarks of ``apns-live bench``: the engine, the service and the gateway on this machine."""
