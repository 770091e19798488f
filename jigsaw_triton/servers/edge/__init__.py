"""The edge: HAProxy in front of the gateway, with TLS, API keys, limits, and a queue during the gateway's restarts."""
