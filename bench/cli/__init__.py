"""The command line, a file a command: options in, words out."""
