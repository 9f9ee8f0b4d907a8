"""What is done to an archive, a call and a track, whoever asks for it: steps of a job, or a command
that presses one archive by itself.
"""
