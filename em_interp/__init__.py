"""em_interp: find the gate that hides a model's misalignment, prove it by intervention, close it.

Nothing is imported here on purpose: `python -m em_interp.<verb> --help` must not wait for torch.
"""

__version__ = "0.1.0"
