"""What every layer stands on: errors with exit codes, digests, names that become files, scores. No ML library."""
