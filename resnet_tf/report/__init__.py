"""Plots and HTML reports from plain arrays and the files of a run."""
