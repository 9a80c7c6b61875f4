"""`towerbus doctor`: looks at a configuration and its broker, and says of each thing that is wrong how to mend it."""
