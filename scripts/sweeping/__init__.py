"""Sweeps: many runs of the launch recipes from one YAML file, their table and their figures."""
