"""Media files: Matroska, WebM, Ogg and MP3."""
