"""From a packet dump, and the metadata beside it, to packet runs in order, with their loss."""
