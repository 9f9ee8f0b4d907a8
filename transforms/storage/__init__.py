"""Objects and their names, on disks and in object stores alike: the only code that tells them
apart.
"""
