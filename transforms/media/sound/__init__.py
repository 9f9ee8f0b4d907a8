"""From placed packets to audio: decoding, placing, mixing, limiting, measuring."""
