"""Storage: atomic files, locks, sealed JSON, the journal of a search; and the guard of --offline."""
