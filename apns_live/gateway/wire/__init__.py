"""The gateway's HTTP server: connection limits, TLS, HTTP/1.1 by uvicorn, HTTP/2 by our own code.

``serving`` (one level up) puts the parts together.
"""
