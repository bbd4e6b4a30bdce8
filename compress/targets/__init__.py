"""Where an artifact runs: one file a target, each writing the files of its runtime and counting what is in them."""
