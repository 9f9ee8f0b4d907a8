"""The job profiles that come with the program: `--config NAME` takes `NAME.toml` from here."""
