"""The command line, one file per command: each reads options, calls the program and prints."""
