"""Job stores: everything that is remembered."""
