"""The wire: what carries sessions over WebSocket connections. Autobahn is known here and nowhere else."""
