"""Where events go: one module for each kind of sink, listed in `towerbus.bridge.kinds`."""
