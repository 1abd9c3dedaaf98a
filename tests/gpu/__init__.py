"""The first minutes on a GPU: `make gpu`, or `python -m tests.gpu PART...`.

Each part returns lines to print, and raises AssertionError for what is wrong. Without a card all parts but `memory` are run on a
stand-in (`tests.standin`), so that they run when there is a card; what they find there is not known until then.
"""
