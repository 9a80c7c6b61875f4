"""Catching up: what a client has missed is read from the log, until it hears the log's next event like all others."""
