"""Random calls with everything at once, and how well the product places them: `draw_world`,
`press_world`. Their own code, independent of `tests/support/simulation`.
"""
