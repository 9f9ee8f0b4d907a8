"""Objects and their names, on disks and in object stores alike. The only code that knows URIs."""
