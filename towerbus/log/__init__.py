"""The log: the ordered, replayable record of all events, behind one seam (`interface.py`)."""
