"""The harness of ``apns-live bench``: measures the engine, the service and the gateway on this machine."""
