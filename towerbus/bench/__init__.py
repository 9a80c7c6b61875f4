"""`towerbus bench`: load on a deployment, with every event accounted for."""
