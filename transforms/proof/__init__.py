"""What can be proven of a catalog: a listing against it, its tables, its files, and the receipt."""
