"""Coinbase over a socket: the connection that carries the protocol object's frames."""
