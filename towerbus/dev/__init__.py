"""`make dev`: what runs while towerbus is worked on. Nothing of it is needed to run towerbus itself."""
