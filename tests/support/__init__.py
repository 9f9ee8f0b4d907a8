"""What tests are built from: builders of archives, simulated calls, measures, storage servers."""
