"""Maintenance: checks of this machine (`bench doctor`) and removal of unneeded files (`bench clean`)."""
