"""One file a model family: which module plays which role, as data."""
