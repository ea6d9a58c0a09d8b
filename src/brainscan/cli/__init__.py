"""The command line: a file per verb group, and no logic beyond reading and printing."""
