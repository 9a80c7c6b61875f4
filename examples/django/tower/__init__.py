"""The project: a controller of jobs, as small as can be."""
