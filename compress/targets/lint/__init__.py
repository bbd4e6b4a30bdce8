"""Rules that the files of a target keep. A rule is a file below the folder of its target."""
