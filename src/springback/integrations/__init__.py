"""Adapters to other people's software.  Each module needs its extra only when it is used."""
