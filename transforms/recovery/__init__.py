"""What a killed run left behind, taken up by the next one."""
