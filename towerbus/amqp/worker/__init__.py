"""The worker's session with the broker: it orders the intake into the log."""
