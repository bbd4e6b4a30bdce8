"""Methods that train a smaller or coarser encoder to say what the reference says."""
