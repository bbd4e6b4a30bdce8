"""compress makes multimodal encoders small and fast, and releases them only if they pass their gates."""

__version__ = "0.1.0"
