"""Bridges: events from where they are born onto the bus, and from the bus to where they are needed."""
