"""The gateway's HTTP server: who may connect, TLS, HTTP/1.1 by uvicorn, HTTP/2 by our own frames.

``serving`` (one level up) puts the parts together.
"""
