"""Shared logic of the CultureLLM study: about one module per notebook, plus the contract of their files."""

import warnings

__version__ = "0.1.0"

# Notebooks show no progress bars, so the missing widgets are no loss.
warnings.filterwarnings("ignore", message="IProgress not found")
