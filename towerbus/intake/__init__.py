"""The intake: where producers put events before they are ordered into the log, behind one seam (`interface.py`)."""
