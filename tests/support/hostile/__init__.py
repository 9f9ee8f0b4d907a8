"""Archives that nobody should send and somebody will: bombs, lies, damage, odd ids.

Each holds a good call of Alice and Bob beside what is wrong, so that a test can ask for the good
part whole. All are seeded, built in memory and small: a bomb is one compressed block of zeros, over
and over. A case is a function with the message that is expected; `cases` lists them all.
"""
