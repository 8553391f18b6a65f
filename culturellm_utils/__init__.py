"""Shared logic of the CultureLLM study: about one module per notebook, plus the contract of their files."""

import logging
import warnings

__version__ = "0.1.0"

# Advice of libraries to each other, or about progress bars that no notebook shows, would spill onto the pages.
warnings.filterwarnings("ignore", message="IProgress not found")
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
