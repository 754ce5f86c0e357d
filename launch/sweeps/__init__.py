"""Hyperparameter sweeps: a study in a file, a process per trial."""
