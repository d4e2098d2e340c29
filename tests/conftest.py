"""What every test runs under: offline, and with the shapes in the annotations checked."""

import os

from jaxtyping import install_import_hook

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Shapes are checked by the test run only; floor 1 has none. Must come before the first import.
TENSOR_MODULES = (
    "activations",
    "directions",
    "probes",
    "edits",
    "models",
    "batches",
    "capture",
    "generation",
    "scoring",
    "extraction",
    "probing",
    "localisation",
)
install_import_hook([f"em_interp.{name}" for name in TENSOR_MODULES], "checked.check")
