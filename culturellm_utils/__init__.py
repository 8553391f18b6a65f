"""Shared logic of the CultureLLM study: about one module per notebook, plus the contract of their files."""

__version__ = "0.1.0"
