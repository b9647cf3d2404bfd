"""nucleate turns a molecule into its crystals."""

__version__ = "0.1.0"
