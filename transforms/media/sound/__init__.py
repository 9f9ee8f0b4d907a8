"""From placed packets to what is heard: decoding, placing, mixing, limiting, measuring."""
