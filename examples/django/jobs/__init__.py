"""Jobs, and what is broadcast of them."""
