"""Where messages come from: one module for each kind of source, listed in `towerbus.bridge.kinds`."""
