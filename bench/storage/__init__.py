"""The disk and the network: atomic files, locks, sealed JSON, the journal of a search, the guard of --offline."""
