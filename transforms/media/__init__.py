"""Plain Python over bytes, files and arrays: RTP in, MKV and MP3 out. Knows neither Beam nor
URIs.
"""
