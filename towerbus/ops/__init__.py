"""What those who run it look at: the canary, health and metrics."""
