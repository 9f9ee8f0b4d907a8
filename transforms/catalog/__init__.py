"""The tables: their schemas, rows, objects, names, lock, and the order in which they are
published.
"""
