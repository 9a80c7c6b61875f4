"""What the worker decides: which events go into the next record, what may be acknowledged, what is known of the log."""
