"""The command line: one file a command, one handler for every error."""
