"""Other libraries, each in its own environment, driven from here line by line."""
