"""Senders, clocks and networks of which the truth is known to the sample.

A `Sender` is one segment of a participant: what is said when, how its clocks run, and what the
network does. `simulate` makes its dump and keeps the truth: content sample n, fed to the encoder as
media time n, was captured at a known moment of the server's clock, and belongs `LEAST_DELAY_S`
later in the mix (with a shorter path, that much less). Nobody can know that constant, so it is the
same for everyone here.

What is said are *markers*: chirps of 200 ms, no two alike, with silence between them that costs
next to nothing to encode. `measure` finds each in decoded audio to a fraction of a sample. An hour
of 20 ms packets takes about a second to build.
"""
