"""Distillation and healing: methods that train a tower to say what its teacher says."""
